# SPDX-License-Identifier: Apache-2.0
"""The passes over verl's Megatron engine; see :class:`verl_ext.integration.passes.Passes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from verl_ext.integration.ablated_pass import AblatedView
from verl_ext.integration.forward_step import forward_step_replaced, method_replaced
from verl_ext.integration.megatron.grid import Grid, grid_of
from verl_ext.integration.megatron.model import unwrapped
from verl_ext.integration.megatron.positions import own_positions
from verl_ext.integration.megatron.response_logits import can_choose_logits, choose_logits
from verl_ext.integration.megatron.similarity import with_similarities
from verl_ext.integration.plan import Plan


def prepare(engine: Any, response_only_logits: bool | None, plan: Plan) -> None:
    """Compute logits of response tokens alone, where wanted and possible."""
    if can_choose_logits(engine) if response_only_logits is None else response_only_logits:
        choose_logits(engine, _grid(engine))


def measuring(
    engine: Any, plan: Plan, views: Mapping[str, AblatedView], vision_token_ids: Sequence[int]
) -> AbstractContextManager[None]:
    """While open, similarities are measured in the engine's own pass."""
    if not plan.similarities:
        return nullcontext()
    grid = _grid(engine)

    def wrap(run: Any) -> Any:
        return with_similarities(run, engine, plan.similarities, vision_token_ids, grid)

    return method_replaced(engine, "forward_backward_batch", wrap)


def running(engine: Any, view: AblatedView) -> AbstractContextManager[None]:
    """While open, the engine runs the ablated view of every micro-batch."""
    grid = _grid(engine)

    def wrap(step: Any) -> Any:
        def forward_step(batch_iter: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            ablated = view.of(next(batch_iter))
            moved = view.ablation.spec.kind == "drop_vision"
            with own_positions(model, ablated, grid) if moved else nullcontext():
                return step(iter([ablated]), model, *args, **kwargs)

        return forward_step

    return forward_step_replaced(engine, wrap)


def _grid(engine: Any) -> Grid:
    return grid_of(bool(unwrapped(engine.module[0]).config.sequence_parallel))
