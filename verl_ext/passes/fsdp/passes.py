# SPDX-License-Identifier: Apache-2.0
"""The passes over verl's FSDP engines; see :class:`verl_ext.passes.engine_passes.Passes`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from verl_ext.models.vision_tower import fit_vision_tower
from verl_ext.passes.ablated_view import AblatedView
from verl_ext.passes.forward_step import forward_step_replaced
from verl_ext.passes.fsdp.clean_pass import measuring
from verl_ext.passes.fsdp.response_logits import can_choose_logits, choose_logits
from verl_ext.passes.signals_by_pass import Plan

__all__ = ["measuring", "prepare", "running"]


def prepare(engine: Any, response_only_logits: bool | None, plan: Plan) -> None:
    """Fit the vision tower to verl and FSDP, and shorten the head's input where wanted and possible."""
    fit_vision_tower(engine.module)
    response_only = can_choose_logits(engine) if response_only_logits is None else response_only_logits
    if response_only or plan.paired:
        choose_logits(engine, response_only)


@contextmanager
def running(engine: Any, view: AblatedView) -> Iterator[None]:
    """While open, the engine runs the ablated view of every micro-batch."""
    with view.running(engine.module), forward_step_replaced(engine, view.instead):
        yield
