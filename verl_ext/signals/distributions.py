# SPDX-License-Identifier: Apache-2.0
"""Divergences and entropies of two distributions, of which a part of the vocabulary is at hand at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verl_ext.signals.entropy import entropy_of

# exp(-FAR) is 0 in float64.
FAR = 1e4

LogitsOf = Callable[[slice], Tensor]
"""Maps a part of the vocabulary to its (n, part) logits."""


@dataclass(frozen=True, eq=False)
class ViewComparison:
    """The distributions of the clean (P) and the ablated view (Q), compared token by token, in nats.

    Attributes:
        kl: KL(P || Q), in [0, inf]; inf where a token that P allows is impossible in Q.
        jsd: Jensen-Shannon divergence, in [0, ln 2].
        clean_entropy: H(P) >= 0.
        ablated_entropy: H(Q) >= 0.
    """

    kl: Tensor
    jsd: Tensor
    clean_entropy: Tensor
    ablated_entropy: Tensor


def compared(clean: LogitsOf, ablated: LogitsOf, vocabulary: int, chunk_size: int) -> Tensor:
    """(4, n) KL, JSD and the two entropies of n tokens."""
    parts = slices(vocabulary, chunk_size)
    clean_normaliser, ablated_normaliser = _log_normaliser(clean, parts), _log_normaliser(ablated, parts)
    total: Tensor | float = 0.0
    for part in parts:
        log_p = _log_probs(clean(part), clean_normaliser)
        log_q = _log_probs(ablated(part), ablated_normaliser)
        total = total + torch.stack([*_divergence_sums(log_p, log_q), entropy_of(log_p), entropy_of(log_q)])
    return torch.as_tensor(total)


def _log_normaliser(logits: LogitsOf, parts: list[slice]) -> tuple[Tensor, Tensor]:
    """(n, 1) largest logit, and log-sum-exp of what remains; their sum would round away digits of large logits."""
    first = logits(parts[0])
    peak = first.amax(dim=-1, keepdim=True)
    mass = (first - _finite(peak)).exp().sum(dim=-1, keepdim=True)
    del first
    for part in parts[1:]:
        values = logits(part)
        higher = torch.maximum(peak, values.amax(dim=-1, keepdim=True))
        mass = mass * (peak - _finite(higher)).exp() + (values - _finite(higher)).exp().sum(dim=-1, keepdim=True)
        peak = higher
    return peak, mass.log()


def _finite(peak: Tensor) -> Tensor:
    """0 in the place of -inf, which nothing may be subtracted from."""
    return peak.masked_fill(torch.isneginf(peak), 0.0)


def _log_probs(logits: Tensor, normaliser: tuple[Tensor, Tensor]) -> Tensor:
    peak, log_mass = normaliser
    return (logits - peak).sub_(log_mass)


def _divergence_sums(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) sums over a part of the vocabulary of the terms of KL(P || Q) and of the JSD.

    Neither cancels where the views almost agree: with r = small / big of the two probabilities, a term of the JSD is
    big (r log r - (1 + r) log((1 + r) / 2)) / 2, and one of the KL is p log(p / q) + q - p, whose last two sum to 0.
    """
    gap = (log_p - log_q).masked_fill_(torch.isneginf(log_p) & torch.isneginf(log_q), 0.0)
    big = torch.maximum(log_p, log_q).exp_()
    distance = gap.abs().clamp_(max=FAR)
    ratio, drop = (-distance).exp_(), torch.expm1(-distance)
    kl = big * torch.where(gap >= 0.0, gap + drop, -drop - ratio * distance)
    # A token that only Q excludes, also where P's probability has underflown.
    kl.masked_fill_(torch.isposinf(gap), math.inf)
    jsd = big * ((1.0 + ratio) * torch.log1p(drop / 2) + ratio * distance)
    return kl.sum(dim=-1), jsd.sum(dim=-1) / -2


def slices(count: int, size: int) -> list[slice]:
    """At least one, also of nothing."""
    return [slice(start, min(start + size, count)) for start in range(0, max(count, 1), size)]
