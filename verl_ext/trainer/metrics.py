# SPDX-License-Identifier: Apache-2.0
"""The few numbers that say what the signals and weights of a step look like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from verl_ext.methods.base import RolloutSignals
from verl_ext.signals.divergence import sampled_k3
from verl_ext.signals.request import AblatedLogProb
from verl_ext.vocabulary import IMAGE_TOKENS_MASKED, PROMPT_TOKENS, SAVED_TOKENS

TOP_FRACTION = 0.2


def signal_metrics(signals: RolloutSignals) -> dict[str, float]:
    """`perception/<signal>/{mean,p95,top20_share}` of each measured signal, and the share of rows with an image.

    Of sampled log-probabilities of an ablated view two things are told: `visual_dependency`, the sampled k3 divergence
    (nats) of the clean from the ablated view, and `ablated_nll`. `top20_share` is the part of a signal's sum that the
    highest fifth of the tokens holds. Tokens of rows without an image are left out.
    """
    metrics = {"perception/image_rows": signals.has_image.float().mean().item()}
    counted = signals.response_mask & signals.has_image[:, None]
    if not counted.any():
        return metrics
    for signal, measured in signals.measured.items():
        values = measured[counted]
        if isinstance(signal, AblatedLogProb):
            suffix = signal.field.removeprefix(AblatedLogProb().field)
            metrics[f"perception/ablated_nll{suffix}"] = -values.mean().item()
            dependency = sampled_k3(signals.old_log_prob[counted], values)
            metrics.update(_distribution(f"perception/visual_dependency{suffix}", dependency))
        else:
            metrics.update(_distribution(f"perception/{signal.field}", values))
    return metrics


def method_metrics(weights: Mapping[str, Tensor], response_mask: Tensor) -> dict[str, float]:
    """`perception/<method>/weight_{mean,min,max,zero_fraction}` over the valid tokens, for each method."""
    metrics = {}
    for name, of_method in weights.items():
        w = of_method[response_mask]
        if w.numel():
            metrics[f"perception/{name}/weight_mean"] = w.double().mean().item()
            metrics[f"perception/{name}/weight_min"] = w.min().item()
            metrics[f"perception/{name}/weight_max"] = w.max().item()
            metrics[f"perception/{name}/weight_zero_fraction"] = (w == 0).double().mean().item()
    return metrics


def weight_metrics(weights: Tensor, response_mask: Tensor) -> dict[str, float]:
    """`perception/token_weight/{max,effective_fraction}`.

    The effective fraction is (sum w)^2 / (n sum w^2): 1 when all tokens weigh the same, 1/n when one has it all.
    """
    w = weights[response_mask].double()
    if w.numel() == 0:
        return {}
    effective = w.sum() ** 2 / (w.numel() * (w**2).sum().clamp(min=1e-30))
    return {
        "perception/token_weight/max": w.max().item(),
        "perception/token_weight/effective_fraction": effective.item(),
    }


def masked_metrics(extra_fields: Iterable[Any]) -> dict[str, float]:
    """`perception/image_tokens_masked`: how many sampled image tokens were masked in the responses with these fields.

    Args:
        extra_fields: what the agent loop left beside each response; anything that is no mapping counts as nothing.
    """
    known = (fields for fields in extra_fields if isinstance(fields, Mapping))
    return {f"perception/{IMAGE_TOKENS_MASKED}": float(sum(fields.get(IMAGE_TOKENS_MASKED, 0) for fields in known))}


def _distribution(name: str, values: Tensor) -> dict[str, float]:
    # torch.quantile refuses more than 2^24 numbers, which a large batch of long responses reaches.
    p95 = values.kthvalue(math.ceil(0.95 * values.numel())).values.item()
    return {f"{name}/mean": values.mean().item(), f"{name}/p95": p95, f"{name}/top20_share": _top_share(values)}


def _top_share(values: Tensor) -> float:
    count = max(1, round(TOP_FRACTION * values.numel()))
    total = values.sum()
    return (values.topk(count).values.sum() / total).item() if total > 0 else TOP_FRACTION


def shared_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """What the updates of a step have shared, a mini-batch; takes the counts that it is made of out of `metrics`."""
    saved, prompts = (float(metrics.pop(f"actor/{name}", 0.0)) for name in (SAVED_TOKENS, PROMPT_TOKENS))
    return {SAVED_TOKENS: saved, "perception/shared_prompt_fraction": saved / max(1.0, prompts)}
