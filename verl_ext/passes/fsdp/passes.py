# SPDX-License-Identifier: Apache-2.0
"""The passes over verl's FSDP engines; see :class:`verl_ext.passes.engine_passes.Passes`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from verl_ext.errors import ConfigurationError
from verl_ext.logs import get_logger
from verl_ext.models.text_positions import tell_text_positions
from verl_ext.models.vision_tower import fit_vision_tower
from verl_ext.passes.ablated_view import AblatedView
from verl_ext.passes.forward_step import method_replaced
from verl_ext.passes.fsdp.clean_pass import measuring
from verl_ext.passes.fsdp.response_logits import can_choose_logits, choose_logits
from verl_ext.passes.fsdp.share_prompts import share_prompts, why_not_shared
from verl_ext.passes.signals_by_pass import Plan

logger = get_logger(__name__)

__all__ = ["measuring", "prepare", "running"]


def prepare(engine: Any, response_only_logits: bool | None, plan: Plan, share: bool | None = None) -> None:
    """Fit the vision tower to verl and FSDP, shorten the head's input and share prompts where wanted and possible."""
    fit_vision_tower(engine.module)
    tell_text_positions(engine.module)
    response_only = can_choose_logits(engine) if response_only_logits is None else response_only_logits
    if response_only or plan.paired:
        choose_logits(engine, response_only)
    if share is False:
        return
    reason = why_not_shared(engine, response_only)
    if reason is None:
        share_prompts(engine)
    elif share:
        raise ConfigurationError(key="perception.share_prompts", value=True, remedy=f"{reason}; write null or False")
    else:
        logger.info("prompts are not shared: %s", reason)


@contextmanager
def running(engine: Any, view: AblatedView) -> Iterator[None]:
    """While open, the engine runs the ablated view; what becomes shorter is ablated before it is cut."""
    cut_after = view.is_shorter
    replaced = method_replaced(engine, "forward_backward_batch" if cut_after else "forward_step", view.instead)
    with view.running(engine.module), replaced:
        yield
