# SPDX-License-Identifier: Apache-2.0
"""What is measured during verl's own old-log-prob pass, and right beside it.

Each `with_*` function takes a forward step and returns one that also measures: it adds a jagged field a signal to the
step's `model_output`. :func:`measuring` stacks them on an engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from verl_ext.models.hidden_states import hidden_states_to
from verl_ext.models.language_model import head, hooks, logit_cap
from verl_ext.passes.ablated_view import AblatedView
from verl_ext.passes.forward_step import ForwardStep, forward_step_replaced
from verl_ext.passes.fsdp.paired_views import with_views
from verl_ext.passes.fsdp.response_logits import gives_response_logits
from verl_ext.passes.own_positions import Parts, own_layout, parts_of, put_together, summed_by
from verl_ext.passes.signals_by_pass import Plan
from verl_ext.passes.token_layout import as_response_field, predictors, temperature, token_layout
from verl_ext.signals.entropy import truncated_entropy
from verl_ext.signals.layer_similarity import SimilarityAccumulator
from verl_ext.signals.layout import TokenLayout
from verl_ext.signals.logit_cap import capped
from verl_ext.signals.request import Entropy, Similarity

TOKEN_CHUNK = 512
"""Response tokens whose logits are copied at a time."""


def measuring(
    engine: Any, plan: Plan, views: Mapping[str, AblatedView], vision_token_ids: Sequence[int]
) -> AbstractContextManager[None]:
    """While open, the forward steps also measure what `plan` assigns to the clean pass; see `Passes.measuring`."""

    def wrap(own: ForwardStep) -> ForwardStep:
        step, parts = own, parts_of(engine)
        for similarity in plan.similarities:
            step = with_similarity(step, engine.module, similarity, vision_token_ids, parts)
        for entropy in plan.entropies:
            step = with_truncated_entropy(step, engine.module, entropy, parts, gives_response_logits(engine))
        paired = [(views[view], signals) for view, signals in plan.paired.items()]
        return with_views(step, own, engine.module, paired, parts) if paired else step

    return forward_step_replaced(engine, wrap) if plan.in_clean_pass else nullcontext()


def with_similarity(
    step: ForwardStep, model: torch.nn.Module, signal: Similarity, vision_token_ids: Sequence[int], parts: Parts
) -> ForwardStep:
    """Also measure `signal` from the hidden states as the layers compute them; none is kept."""

    def forward_step(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        measure = _PartialSimilarity(signal, token_layout(micro_batch, vision_token_ids), parts)
        with hidden_states_to(measure.add, model, every_layer=signal.layers == "all"):
            loss, output = step(micro_batch, *args, **kwargs)
        output["model_output"][signal.field] = as_response_field(measure.result(), micro_batch)
        return loss, output

    return forward_step


class _PartialSimilarity:
    """A similarity accumulator over this rank's part, whose size the first layer tells."""

    def __init__(self, signal: Similarity, layout: TokenLayout, parts: Parts) -> None:
        self._signal, self._layout, self._parts = signal, layout, parts
        self._own: SimilarityAccumulator | None = None

    def add(self, hidden: Tensor) -> None:
        """Take in the (..., D) states of one layer."""
        if self._own is None:
            layout, self._kept = own_layout(self._parts, self._layout, hidden.shape[:-1].numel())
            score, layers, pooling = self._signal.score, self._signal.layers, self._signal.pooling
            self._own = SimilarityAccumulator(layout, score, layers, pooling, summed_by(self._parts))  # type: ignore[arg-type]
        self._own.add(hidden)

    def result(self) -> Tensor:
        """(N,) similarity of all tokens, those of other ranks included."""
        assert self._own is not None
        return put_together(self._parts, self._own.result(), self._kept, len(self._layout.tokens))


def with_truncated_entropy(
    step: ForwardStep, model: torch.nn.Module, signal: Entropy, parts: Parts, response_only: bool
) -> ForwardStep:
    """Also measure `signal` from the logits as the head computes them, a few tokens at a time.

    With `response_only` the logits are those of this rank's response tokens, in order, and what fills them up.
    """

    def forward_step(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        where, cap = predictors(micro_batch), logit_cap(model)
        found: list[tuple[Tensor, Tensor]] = []
        lengths: list[int] = []

        def note(_head: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
            lengths.append(given[0].shape[:-1].numel())

        def read(_head: torch.nn.Module, _given: Any, logits: Tensor) -> None:
            flat = logits.flatten(0, -2)
            kept, rows = parts.own(where, lengths[-1])
            rows = torch.arange(len(kept), device=flat.device) if response_only else rows
            values = [
                truncated_entropy(capped(flat[part], cap), signal.top_p, temperature=temperature(micro_batch))
                for part in rows.split(TOKEN_CHUNK)
            ]
            found.append((torch.cat(values), kept))

        with hooks(head(model).register_forward_pre_hook(note), head(model).register_forward_hook(read)):
            loss, output = step(micro_batch, *args, **kwargs)
        values = put_together(parts, *found[0], len(where))
        output["model_output"][signal.field] = as_response_field(values, micro_batch)
        return loss, output

    return forward_step
