# SPDX-License-Identifier: Apache-2.0
"""How an image is taken away. Depends on torch, numpy and PIL alone."""

from verl_ext.ablation.patch_rows import random_patch_rows
from verl_ext.ablation.random_patch import random_patch

__all__ = ["random_patch", "random_patch_rows"]
