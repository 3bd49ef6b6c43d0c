# SPDX-License-Identifier: Apache-2.0
"""How uncertain the policy is, once the unlikely tail that is never sampled is cut off."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from verl_ext.signals.temperature import temperature_column

USUAL_NUCLEUS = 1024
"""Tokens that nearly always hold the nucleus; finding them is ten times faster than sorting a whole vocabulary."""


@torch.no_grad()
def truncated_entropy(
    logits: Tensor, top_p: float, *, temperature: float | Tensor = 1.0, chunk_size: int = 128
) -> Tensor:
    """Entropy (nats) of the nucleus of each distribution.

    The nucleus is the smallest set of most likely tokens whose probability reaches `top_p`, the token that crosses it
    included, renormalised. A nucleus of one token has entropy exactly 0; ``top_p=1`` gives the full entropy. With
    vocabularies of more than 1024 tokens one number a chunk is read back from the device.

    Args:
        logits: (..., V) floating point; -inf for impossible tokens.
        top_p: in (0, 1].
        temperature: > 0; what logits are divided by, one number or a (...) tensor.
        chunk_size: tokens at a time; a few (chunk_size, V) tensors are the extra memory.

    Returns:
        (...) float32 (float64 for float64 input), detached, >= 0; NaN where no token is possible or a logit is NaN.

    Raises:
        ValueError: a shape, a dtype or a parameter is outside what is listed above.

    Source: ToR (arXiv 2603.25077), with top_p 0.95.
    """
    if logits.ndim < 1 or not logits.is_floating_point():
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and dtype {logits.dtype}; "
            "it must be a floating-point tensor of shape (..., V)"
        )
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p is {top_p!r}; it must be in (0, 1]")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size!r}; it must be >= 1")
    result = logits.new_empty(logits.shape[:-1].numel(), dtype=torch.promote_types(logits.dtype, torch.float32))
    divisor = temperature_column(temperature, logits.shape[:-1], result)
    start = 0
    for chunk in _token_chunks(logits, chunk_size):
        stop = start + len(chunk)
        log_probs = (chunk / divisor[start:stop]).log_softmax(dim=-1)
        result[start:stop] = entropy_of(log_probs if top_p == 1.0 else _nucleus(log_probs, top_p))
        start = stop
    return result.view(logits.shape[:-1])


def entropy_of(log_probs: Tensor) -> Tensor:
    """(..., V) log-probabilities to (...) entropy; an impossible token adds 0."""
    lowest = torch.finfo(log_probs.dtype).min
    return (log_probs.exp() * log_probs.clamp(min=lowest)).sum(dim=-1).neg_().clamp_(min=0.0)


def _nucleus(log_probs: Tensor, top_p: float) -> Tensor:
    """(n, k) renormalised log-probabilities, most likely first, -inf outside the nucleus."""
    ordered = log_probs.topk(min(USUAL_NUCLEUS, log_probs.shape[-1]), dim=-1).values
    if ordered.shape[-1] < log_probs.shape[-1] and ordered.exp().sum(dim=-1).amin() < top_p:
        ordered = log_probs.sort(dim=-1, descending=True).values
    more_likely = ordered[:, :-1].exp().cumsum(dim=-1)
    ordered[:, 1:].masked_fill_(more_likely >= top_p, -math.inf)
    return ordered.log_softmax(dim=-1)


def _token_chunks(logits: Tensor, size: int) -> Iterator[Tensor]:
    """(n, V) views of at most `size` tokens, in order; flattening what is not contiguous would copy all of it."""
    if logits.ndim > 2 and not logits.is_contiguous():
        for part in logits.unbind():
            yield from _token_chunks(part, size)
    elif logits.numel():
        yield from logits.reshape(-1, logits.shape[-1]).split(size)
