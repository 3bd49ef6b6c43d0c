# SPDX-License-Identifier: Apache-2.0
"""The vision tower of an engine's model: skipped in a blind pass, and fitted to what verl expects of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from verl_ext.models.language_model import family, named_part
from verl_ext.models.position_table import let_table_be_read
from verl_ext.models.ranks_in_step import run_tower_without_images
from verl_ext.models.tower_features import Seen


def vision_tower(model: torch.nn.Module) -> torch.nn.Module | None:
    """The tower, whatever FSDP or LoRA wraps around it; None if the model has none."""
    return named_part(model, family(model).tower.name)


@contextmanager
def skip_vision_tower(model: torch.nn.Module) -> Iterator[None]:
    """While open, the tower returns a zero instead of running.

    verl's forwards run the tower on a dummy image when a micro-batch has none, and add 0 times its mean, so that ranks
    with and without images stay in step. In a blind pass no rank has images and none needs that.
    """
    tower = vision_tower(model)
    with nullcontext() if tower is None else tower_forward_replaced(tower, _nothing_seen):
        yield


@contextmanager
def tower_forward_replaced(tower: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While open, `tower` runs `forward` in place of its own."""
    before = tower.__dict__.get("forward")
    tower.forward = forward
    try:
        yield
    finally:
        del tower.forward
        if before is not None:
            tower.forward = before


def fit_vision_tower(model: torch.nn.Module) -> None:
    """Let verl's forward and FSDP work with the tower, in micro-batches with and without images.

    Done once, when the engine has built its model; what is needed is in :class:`verl_ext.models.family.Tower`.
    """
    known, tower = family(model).tower, vision_tower(model)
    if tower is None:
        return
    tower.register_forward_hook(_features_alone if known.returns_features else _give_mean)
    if known.position_table:
        let_table_be_read(tower, known.position_table)
    if not known.runs_on_dummy:
        run_tower_without_images(model, tower)


def _nothing_seen(pixel_values: torch.Tensor, *_args: Any, **_kwargs: Any) -> Seen:
    return Seen(pixel_values.new_zeros(1))


def _features_alone(_tower: torch.nn.Module, _args: Any, output: Any) -> Any:
    """transformers 5 returns a structure where verl 0.9 reads a tensor."""
    return getattr(output, "pooler_output", output)


def _give_mean(_tower: torch.nn.Module, _args: Any, output: Any) -> None:
    """verl 0.9 takes the mean of what transformers 5 returns as a structure."""
    if not hasattr(output, "mean"):
        output.mean = output.pooler_output.mean
