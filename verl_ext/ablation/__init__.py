# SPDX-License-Identifier: Apache-2.0
"""How an image is taken away. Depends on torch, numpy and PIL alone."""

from verl_ext.ablation.blank import blank_rows
from verl_ext.ablation.diffusion import annealed_step, vp_diffusion_rows
from verl_ext.ablation.drop_vision import PackedSequences, drop_vision
from verl_ext.ablation.layout import PatchFormat
from verl_ext.ablation.noise import gaussian_noise_rows
from verl_ext.ablation.patch_rows import random_patch_rows
from verl_ext.ablation.pixels import ablate_pixels
from verl_ext.ablation.random_patch import random_patch
from verl_ext.ablation.shuffle_text import shuffle_text
from verl_ext.ablation.spec import KINDS, AblationSpec

__all__ = [
    "KINDS",
    "AblationSpec",
    "PackedSequences",
    "PatchFormat",
    "ablate_pixels",
    "annealed_step",
    "blank_rows",
    "drop_vision",
    "gaussian_noise_rows",
    "random_patch",
    "random_patch_rows",
    "shuffle_text",
    "vp_diffusion_rows",
]
