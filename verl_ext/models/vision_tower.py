# SPDX-License-Identifier: Apache-2.0
"""The vision tower of an engine's model: skipped in a blind pass, and usable in micro-batches without images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from verl_ext.models.language_model import named_part

TOWER_NAME = "visual"


def vision_tower(model: torch.nn.Module) -> torch.nn.Module | None:
    """The module called `visual`, whatever FSDP or LoRA wraps around it; None if the model has none."""
    return named_part(model, TOWER_NAME)


@contextmanager
def skip_vision_tower(model: torch.nn.Module) -> Iterator[None]:
    """While open, the tower returns a zero instead of running.

    verl's Qwen-VL forward runs the tower on a dummy image when a micro-batch has none, and adds 0 times its mean, so
    that ranks with and without images stay in step. In a blind pass no rank has images and none needs that.
    """
    tower = vision_tower(model)
    if tower is None:
        yield
        return
    own_forward = tower.__dict__.get("forward")
    tower.forward = _nothing_seen
    try:
        yield
    finally:
        del tower.forward
        if own_forward is not None:
            tower.forward = own_forward


def allow_image_free_batches(model: torch.nn.Module) -> None:
    """Let verl's dummy image work with transformers 5, whose towers return a structure that has no `mean`.

    verl 0.9 calls `tower(dummy).mean()`; without this every micro-batch without images (text rows, padding rows) fails.
    """
    tower = vision_tower(model)
    if tower is not None:
        tower.register_forward_hook(_give_mean)


def _nothing_seen(pixel_values: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
    return pixel_values.new_zeros(1)


def _give_mean(_tower: torch.nn.Module, _args: Any, output: Any) -> None:
    if not hasattr(output, "mean"):
        output.mean = output.pooler_output.mean
