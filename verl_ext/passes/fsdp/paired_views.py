# SPDX-License-Identifier: Apache-2.0
"""Ablated views of a micro-batch, run right after the clean one and compared with it over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from verl_ext.models.hidden_states import head_inputs_to
from verl_ext.models.language_model import logit_cap
from verl_ext.passes.ablated_view import AblatedView
from verl_ext.passes.forward_step import ForwardStep
from verl_ext.passes.own_positions import Parts, put_together
from verl_ext.passes.token_layout import as_response_field, predictors, temperature
from verl_ext.signals.full_vocabulary import ViewComparison, view_divergences
from verl_ext.signals.request import AblatedLogProb, Divergence, Signal
from verl_ext.vocabulary import NO_LOGITS


def with_views(
    step: ForwardStep,
    own: ForwardStep,
    model: torch.nn.Module,
    views: Sequence[tuple[AblatedView, Sequence[Signal]]],
    parts: Parts,
) -> ForwardStep:
    """Also run ablated views of the same micro-batch and compare each with the clean one over the whole vocabulary.

    Between the runs only the clean states that the head saw at response tokens are held; logits are made anew, a part
    of the vocabulary at a time.

    Args:
        step: runs and measures the clean view.
        own: the engine's own forward step, for the ablated views.
        model: the engine's model, with :func:`choose_logits` applied to the engine.
        views: the ablated views, each with what to keep of its comparison.
        parts: how the engine cuts micro-batches over ranks.
    """

    def forward_step(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        clean: list[Tensor] = []
        where = predictors(micro_batch)

        def keep(_head: torch.nn.Linear, states: Tensor) -> None:
            kept, rows = parts.own(where, len(states))
            clean.append(put_together(parts, states[rows], kept, len(where)))

        with head_inputs_to(keep, model):
            loss, output = step(micro_batch, *args, **kwargs)
        for view, signals in views:
            ablated_batch = view.of(micro_batch)
            tu.assign_non_tensor(ablated_batch, calculate_entropy=False)
            if not any(isinstance(signal, AblatedLogProb) for signal in signals):
                tu.assign_non_tensor(ablated_batch, **{NO_LOGITS: True})
            with view.running(model), _compared_with(clean[0], model, ablated_batch, parts) as compared:
                _, ablated = own(ablated_batch, *args, **kwargs)
            for signal in signals:
                output["model_output"][signal.field] = _kept(signal, compared[0], ablated["model_output"], micro_batch)
        return loss, output

    return forward_step


@contextmanager
def _compared_with(
    clean: Tensor, model: torch.nn.Module, ablated_batch: TensorDict, parts: Parts
) -> Iterator[list[ViewComparison]]:
    """While open, a run of `ablated_batch` appends its comparison with the clean states (N, D) to the list."""
    compared: list[ViewComparison] = []
    where, cap = predictors(ablated_batch), logit_cap(model)

    def compare(lm_head: torch.nn.Linear, states: Tensor) -> None:
        kept, rows = parts.own(where, len(states))
        found = view_divergences(
            clean[kept],
            states[rows],
            lm_head.weight,
            lm_head.bias,
            temperature=temperature(ablated_batch),
            logit_cap=cap,
        )
        whole = {
            field.name: put_together(parts, getattr(found, field.name), kept, len(where)) for field in fields(found)
        }
        compared.append(ViewComparison(**whole))

    with head_inputs_to(compare, model):
        yield compared


def _kept(signal: Signal, compared: ViewComparison, ablated: Mapping[str, Tensor], micro_batch: TensorDict) -> Tensor:
    """(B, j) jagged fp32 values of one signal of a paired view."""
    if isinstance(signal, AblatedLogProb):
        log_probs = ablated["log_probs"]
        return response_from_nested(log_probs, micro_batch["responses"].to(log_probs.device)).float()
    if isinstance(signal, Divergence):
        return as_response_field(compared.kl if signal.kind == "kl" else compared.jsd, micro_batch)
    return as_response_field(compared.ablated_entropy, micro_batch)
