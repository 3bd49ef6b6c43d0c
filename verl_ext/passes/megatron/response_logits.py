# SPDX-License-Identifier: Apache-2.0
"""Logits for the tokens of the response alone, in verl's Megatron engine.

The output layer sees only the states that predict response tokens; with sequence parallelism it gathers its input over
the ranks of a group, each of which gives equally many. What verl makes of the logits is put back among zeros, before
verl puts together what context-parallel ranks have.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from verl_ext.models.language_model import hooks
from verl_ext.passes.equal_lists import EqualLists
from verl_ext.passes.megatron.cut import Cut, cut_of
from verl_ext.passes.megatron.grid import Grid
from verl_ext.passes.megatron.model import PackSeen, language_model
from verl_ext.passes.megatron.own_positions import sequence_parts
from verl_ext.passes.token_layout import predictors


def can_choose_logits(engine: Any) -> bool:
    """Whether `engine` makes its logits by an output layer that sees one state a token."""
    return not engine.engine_config.use_fused_kernels and not engine.model_config.mtp.enable


def choose_logits(engine: Any, grid: Grid) -> None:
    """Make `engine` compute logits of response tokens alone from now on.

    Args:
        engine: verl's Megatron engine, with its model built.
        grid: what its micro-batches are cut over.
    """
    now = _Now(grid)
    engine.forward_step = _with_short_head_input(engine.forward_step, now)
    engine._lm_head_logits_processor = _of_short_logits(engine._lm_head_logits_processor, now)


class _Now:
    """The micro-batch that the output layer is running."""

    def __init__(self, grid: Grid) -> None:
        self.grid, self.seen = grid, PackSeen()

    def begin(self, micro_batch: TensorDict, states: torch.Size) -> Tensor:
        """Rows of this rank's flattened states that the output layer shall see."""
        where = predictors(micro_batch, packed=True)
        offsets = micro_batch["input_ids"].offsets().to(where.device)
        cut: Cut = cut_of(offsets, states, self.seen.padded_offsets, self.grid)
        own = where[cut.context[where] == self.grid.context.rank]
        self.labels = cut.label[own]
        lists = EqualLists.of(own, sequence_parts(cut, self.grid), states[:-1].numel())
        self.order = lists.order
        self.count = lists.length * self.grid.sequence.size
        return lists.rows

    def shortened(self, values: Tensor, fill: float) -> Tensor:
        """(1, count) what of (columns, places) `values` belongs to the states that the output layer saw."""
        short = torch.full((self.count,), fill, dtype=values.dtype, device=values.device)
        return short.index_copy_(0, self.order, values.flatten()[self.labels])[None]

    def spread(self, values: Tensor, like: Tensor) -> Tensor:
        """(columns, places), `like` verl's labels: the (1, count) `values` among zeros."""
        full = values.new_zeros(like.numel())
        return full.index_copy(0, self.labels, values[0, self.order]).view(like.shape)


def _with_short_head_input(step: Any, now: _Now) -> Any:
    def forward_step(batch_iter: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        micro_batch = next(batch_iter)
        text = language_model(model)

        def shorten(_layer: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            rows = now.begin(micro_batch, given[0].shape)
            return (given[0].flatten(0, 1)[rows][:, None], *given[1:])

        with ExitStack() as stack:
            if text.post_process:
                stack.enter_context(now.seen.watching(model))
                stack.enter_context(hooks(text.output_layer.register_forward_pre_hook(shorten)))
            return step(iter([micro_batch]), model, *args, **kwargs)

    return forward_step


def _of_short_logits(process: Any, now: _Now) -> Any:
    def processor(logits: Tensor, label: Tensor, temperature: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        found = process(logits, now.shortened(label, 0), now.shortened(temperature, 1), **kwargs)
        return {name: now.spread(values, label) for name, values in found.items()}

    return processor
