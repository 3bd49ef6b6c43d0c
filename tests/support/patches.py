# SPDX-License-Identifier: Apache-2.0
"""Patch rows as a Qwen-VL processor lays them out, small and made up."""

import torch

from verl_ext.ablation import PatchFormat

MEAN, STD = (0.48, 0.45, 0.40), (0.27, 0.26, 0.28)
FORMAT = PatchFormat(MEAN, STD, merge_size=2, temporal_patch_size=2)
COLUMNS = 3 * 2 * 4
"""Three channels, two frames, patches of 2 x 2 pixels."""


def seeded(*seeds):
    """One generator a seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def rows(grid, columns=COLUMNS, dtype=torch.float32):
    """(N, columns) between 5 and 6, which no ablation gives by chance."""
    return torch.rand(int(grid.prod(-1).sum()), columns, generator=seeded(0)[0]).to(dtype) + 5.0


def still_rows(grid, seed=0, pixels=4):
    """(N, 3 * 2 * pixels) standard normal pixels of still images: both frames alike."""
    count = int(grid.prod(-1).sum())
    frame = torch.randn(count, 3, 1, pixels, generator=seeded(seed)[0])
    return frame.expand(-1, -1, 2, -1).reshape(count, -1)
