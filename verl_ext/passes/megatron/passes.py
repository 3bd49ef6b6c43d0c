# SPDX-License-Identifier: Apache-2.0
"""The passes over verl's Megatron engine; see :class:`verl_ext.passes.engine_passes.Passes`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from verl_ext.passes.ablated_view import AblatedView
from verl_ext.passes.forward_step import forward_step_replaced
from verl_ext.passes.megatron.grid import Grid, grid_of, tensor_parallel_axis
from verl_ext.passes.megatron.model import unwrapped
from verl_ext.passes.megatron.position_ids import own_positions
from verl_ext.passes.megatron.response_logits import can_choose_logits, choose_logits
from verl_ext.passes.megatron.similarity import measuring_similarities
from verl_ext.passes.megatron.truncated_entropy import let_entropies_be_read, reading_entropies
from verl_ext.passes.signals_by_pass import Plan


def prepare(engine: Any, response_only_logits: bool | None, plan: Plan, share: bool | None = None) -> None:
    """Compute logits of response tokens alone, where wanted and possible, and let entropies be read from them."""
    if plan.entropies:
        let_entropies_be_read(engine, tensor_parallel_axis())
    if can_choose_logits(engine) if response_only_logits is None else response_only_logits:
        choose_logits(engine, _grid(engine))


@contextmanager
def measuring(
    engine: Any, plan: Plan, views: Mapping[str, AblatedView], vision_token_ids: Sequence[int]
) -> Iterator[None]:
    """While open, similarities and truncated entropies are measured in the engine's own pass."""
    with ExitStack() as stack:
        if plan.similarities:
            stack.enter_context(measuring_similarities(engine, plan.similarities, vision_token_ids, _grid(engine)))
        if plan.entropies:
            stack.enter_context(reading_entropies(engine, plan.entropies))
        yield


@contextmanager
def running(engine: Any, view: AblatedView) -> Iterator[None]:
    """While open, the engine runs the ablated view of every micro-batch."""
    grid = _grid(engine)

    def wrap(step: Any) -> Any:
        def forward_step(batch_iter: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            ablated = view.of(next(batch_iter))
            with own_positions(model, ablated, grid) if view.is_shorter else nullcontext():
                return step(iter([ablated]), model, *args, **kwargs)

        return forward_step

    with forward_step_replaced(engine, wrap):
        yield


def _grid(engine: Any) -> Grid:
    return grid_of(bool(unwrapped(engine.module[0]).config.sequence_parallel))
