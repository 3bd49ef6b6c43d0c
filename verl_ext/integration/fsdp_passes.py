# SPDX-License-Identifier: Apache-2.0
"""The passes over verl's FSDP engines; see :class:`verl_ext.integration.passes.Passes`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from verl_ext.integration.ablated_pass import AblatedView
from verl_ext.integration.clean_pass import measuring
from verl_ext.integration.forward_step import forward_step_replaced
from verl_ext.integration.plan import Plan
from verl_ext.integration.response_logits import can_choose_logits, choose_logits
from verl_ext.integration.vision_tower import allow_image_free_batches

__all__ = ["measuring", "prepare", "running"]


def prepare(engine: Any, response_only_logits: bool | None, plan: Plan) -> None:
    """Let micro-batches without images run, and shorten the head's input where wanted and possible."""
    allow_image_free_batches(engine.module)
    response_only = can_choose_logits(engine) if response_only_logits is None else response_only_logits
    if response_only or plan.paired:
        choose_logits(engine, response_only)


@contextmanager
def running(engine: Any, view: AblatedView) -> Iterator[None]:
    """While open, the engine runs the ablated view of every micro-batch."""
    with view.running(engine.module), forward_step_replaced(engine, view.instead):
        yield
