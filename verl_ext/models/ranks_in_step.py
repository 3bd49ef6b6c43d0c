# SPDX-License-Identifier: Apache-2.0
"""The vision tower of models whose forward verl leaves to transformers, run in micro-batches without images as well."""

from __future__ import annotations

from typing import Any

import torch

PIXELS = ("pixel_values", "pixel_values_videos")
GRID = (1, 4, 4)


def run_tower_without_images(model: torch.nn.Module, tower: torch.nn.Module) -> None:
    """Run `tower` on a dummy image in every micro-batch without images, adding 0 times its mean to the embeddings.

    FSDP gathers a tower's weights on all ranks at once, so those without images must take part: otherwise a run hangs.

    Args:
        model: an engine's.
        tower: its own.
    """
    inner = _owner_of(model, tower)

    def take_part(_inner: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if any(kwargs.get(name) is not None for name in PIXELS) or kwargs.get("input_ids") is None:
            return args, kwargs
        embedded = inner.get_input_embeddings()(kwargs["input_ids"])
        seen = tower(*_dummy(inner.config.vision_config, embedded)).pooler_output
        return args, {**kwargs, "input_ids": None, "inputs_embeds": embedded + 0.0 * seen.mean().to(embedded.dtype)}

    inner.register_forward_pre_hook(take_part, with_kwargs=True)


def _owner_of(model: torch.nn.Module, tower: torch.nn.Module) -> Any:
    """The module that has `tower` as a child, which is the one that embeds tokens."""
    return next(module for module in model.modules() if any(child is tower for child in module.children()))


def _dummy(config: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch rows of a grey image of 4 x 4 patches, and its grid."""
    columns = config.in_channels * config.temporal_patch_size * config.patch_size**2
    rows = like.new_zeros(GRID[0] * GRID[1] * GRID[2], columns)
    return rows, torch.tensor([GRID], device=like.device)
