# SPDX-License-Identifier: Apache-2.0
"""The few numbers that say what the signals and weights of a step look like."""

from __future__ import annotations

import math

from torch import Tensor

from verl_ext.methods.base import RolloutSignals
from verl_ext.signals import sampled_k3

TOP_FRACTION = 0.2


def signal_metrics(signals: RolloutSignals) -> dict[str, float]:
    """`perception/visual_dependency/{mean,p95,top20_share}`, `ablated_nll`, and the share of rows with an image.

    The dependency is the sampled k3 divergence (nats) of the clean from the ablated view; `top20_share` is the part of
    its sum that the highest fifth of the tokens holds. Tokens of rows without an image are left out.
    """
    metrics = {"perception/image_rows": signals.has_image.float().mean().item()}
    counted = signals.response_mask & signals.has_image[:, None]
    if signals.ablated_log_prob is None or not counted.any():
        return metrics
    ablated = signals.ablated_log_prob[counted]
    dependency = sampled_k3(signals.old_log_prob[counted], ablated)
    metrics["perception/visual_dependency/mean"] = dependency.mean().item()
    # torch.quantile refuses more than 2^24 numbers, which a large batch of long responses reaches.
    metrics["perception/visual_dependency/p95"] = dependency.kthvalue(
        math.ceil(0.95 * dependency.numel())
    ).values.item()
    metrics["perception/visual_dependency/top20_share"] = _top_share(dependency)
    metrics["perception/ablated_nll"] = -ablated.mean().item()
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


def _top_share(dependency: Tensor) -> float:
    count = max(1, round(TOP_FRACTION * dependency.numel()))
    total = dependency.sum()
    return (dependency.topk(count).values.sum() / total).item() if total > 0 else TOP_FRACTION
