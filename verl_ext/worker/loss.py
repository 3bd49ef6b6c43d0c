# SPDX-License-Identifier: Apache-2.0
"""verl's policy loss plus the terms of the perception methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import agg_loss
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig
from verl.workers.utils.padding import no_padding_2_padding

from verl_ext.methods.base import LossInputs, LossTerm, Method
from verl_ext.methods.credit import influence
from verl_ext.supervision.broken_numbers import STOP, listed, sound_loss
from verl_ext.vocabulary import HAS_IMAGE, STEPS_DONE, TOTAL_STEPS

BaseLoss = Callable[..., tuple[torch.Tensor, dict[str, Any]]]


def loss_with_terms(
    model_output: dict[str, torch.Tensor],
    data: TensorDict,
    dp_group: Any = None,
    *,
    base_loss: BaseLoss,
    config: ActorConfig,
    methods: Sequence[Method],
    on_broken: str = STOP,
    fade_over: float | None = None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """`base_loss` plus every term of every method; a drop-in for verl's `set_loss_fn`.

    Args:
        model_output: `log_probs` (jagged over whole sequences) and whatever else the engine produced.
        data: the micro-batch; needs `ablated_log_prob` and `has_image` if a method reads them.
        dp_group: passed through.
        base_loss: verl's own loss with its configuration bound.
        config: the actor's configuration. `base_loss` has just written the mini-batch's normaliser into its
            `global_batch_info`, so the terms are averaged exactly as the policy loss is, whatever the split.
        methods: the methods that have loss terms.
        on_broken: "stop" or "skip", for a loss that is NaN or infinite.
        fade_over: share of the run over which the coefficients of all terms fall to 0; None keeps them.

    Raises:
        BrokenNumberError: it is, and `on_broken` is "stop".
    """
    loss, metrics = base_loss(model_output=model_output, data=data, dp_group=dp_group)
    parts = {"verl's policy loss": loss}
    share = influence(data[STEPS_DONE] / max(1, data[TOTAL_STEPS]), fade_over) if methods else 1.0
    for name, own_coef, value in _terms(model_output, data, methods, config):
        coef = share * own_coef
        loss = loss + coef * value
        parts[name] = value
        metrics[name] = Metric(value=value, aggregation=AggregationType.SUM)
        metrics[f"{name}_loss_coef"] = coef
    log_probs = model_output["log_probs"]
    loss, found = sound_loss(loss, parts, log_probs.values(), policy=on_broken, where=lambda: _where(data, log_probs))
    return loss, {**metrics, **found}


def _terms(
    model_output: dict[str, torch.Tensor], data: TensorDict, methods: Sequence[Method], config: ActorConfig
) -> Iterator[tuple[str, float, torch.Tensor]]:
    """Name, coefficient and scalar value of each term."""
    if not methods:
        return
    inputs = _loss_inputs(model_output, data, methods)
    for method in methods:
        for term in method.loss_terms(inputs):
            yield f"perception/{method.name}/{term.name}", term.coef, _aggregate(term, inputs.response_mask, config)


def _where(data: TensorDict, log_probs: torch.Tensor) -> str:
    """Training step, and the prompts with a broken number; all of the micro-batch where no single one has it."""
    uids = [str(uid) for uid in data["uid"]] if "uid" in data else []
    per_row = [log_probs.unbind(), *([data["advantages"].unbind()] if "advantages" in data else [])]
    broken = [uid for uid, *rows in zip(uids, *per_row, strict=True) if not all(map(_finite, rows))] if uids else []
    which = f"prompts {listed(broken)}" if broken else f"one of the prompts {listed(uids) or 'unknown'}"
    return f"step {data[STEPS_DONE] + 1}, {which}"


def _finite(values: torch.Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _loss_inputs(model_output: dict[str, torch.Tensor], data: TensorDict, methods: Sequence[Method]) -> LossInputs:
    mask = data["response_mask"].to_padded_tensor(0).bool()
    wanted = frozenset().union(*(method.signals() for method in methods))
    return LossInputs(
        log_prob=no_padding_2_padding(model_output["log_probs"], data),
        response_mask=mask,
        has_image=data[HAS_IMAGE] if wanted else mask.new_zeros(mask.shape[0]),
        measured={signal: data[signal.field].to_padded_tensor(0.0) for signal in wanted},
        steps_done=data[STEPS_DONE],
        total_steps=data[TOTAL_STEPS],
    )


def _aggregate(term: LossTerm, mask: torch.Tensor, config: ActorConfig) -> torch.Tensor:
    mode = "token-mean" if term.token_mean else config.loss_agg_mode
    return agg_loss(loss_mat=term.values, loss_mask=mask, loss_agg_mode=mode, **config.global_batch_info)
