# SPDX-License-Identifier: Apache-2.0
"""Two views of the same tokens compared over the whole vocabulary, without ever storing their logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import linear

from verl_ext.signals.distributions import LogitsOf, ViewComparison, compared, slices
from verl_ext.signals.logit_cap import capped
from verl_ext.signals.temperature import temperature_column

VOCABULARY_CHUNK = 8192
TOKEN_CHUNK = 1024


@torch.no_grad()
def view_divergences(
    clean_hidden: Tensor,
    ablated_hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    logit_cap: float | None = None,
    chunk_size: int = VOCABULARY_CHUNK,
    token_chunk: int = TOKEN_CHUNK,
) -> ViewComparison:
    """Compare the next-token distributions that the LM head gives to two sets of final hidden states.

    Logits are made a part of the vocabulary at a time, twice: for the normalisers, then for the sums. The product with
    `weight` is taken in the dtype of the inputs (of autocast where it is on), as the model's head would, the rest in
    float32 (float64).

    Args:
        clean_hidden: (N, D) floating point.
        ablated_hidden: (N, D) of the same dtype.
        weight: (V, D) of the same dtype.
        bias: (V,) of the same dtype, or None; -inf for impossible tokens.
        temperature: > 0; what logits are divided by, one number or an (N,) tensor.
        logit_cap: > 0; what the model caps logits by before that, as :func:`capped` does; None if it does not.
        chunk_size: vocabulary entries at a time.
        token_chunk: tokens at a time; about ten (token_chunk, chunk_size) tensors are the extra memory.

    Returns:
        (N,) tensors in float32 (float64 for float64 input), detached; NaN where a view allows no token.

    Raises:
        ValueError: a shape, a dtype or a parameter is outside what is listed above.
    """
    _check_pair("clean_hidden", clean_hidden, "ablated_hidden", ablated_hidden)
    _check_head(clean_hidden, ablated_hidden, weight, bias)
    _check_chunks(chunk_size=chunk_size, token_chunk=token_chunk)
    dtype = torch.promote_types(clean_hidden.dtype, torch.float32)
    divisor = temperature_column(temperature, clean_hidden.shape[:-1], clean_hidden.new_empty(0, dtype=dtype))

    def logits_of(hidden: Tensor, tokens: slice) -> LogitsOf:
        def logits(part: slice) -> Tensor:
            product = linear(hidden[tokens], weight[part], None if bias is None else bias[part])
            return capped(product, logit_cap).to(dtype) / divisor[tokens]

        return logits

    return _joined(
        [
            compared(logits_of(clean_hidden, tokens), logits_of(ablated_hidden, tokens), len(weight), chunk_size)
            for tokens in slices(len(clean_hidden), token_chunk)
        ],
        clean_hidden.shape[:-1],
    )


@torch.no_grad()
def logits_divergences(clean_logits: Tensor, ablated_logits: Tensor) -> ViewComparison:
    """Compare two sets of next-token distributions given as logits.

    Args:
        clean_logits: (..., V) floating point, after the temperature; -inf for impossible tokens.
        ablated_logits: same shape.

    Returns:
        (...) tensors in float32 (float64 if an input is float64), detached; NaN where a view allows no token.

    Raises:
        ValueError: the shapes differ or are empty, or an argument is not floating point.
    """
    _check_pair("clean_logits", clean_logits, "ablated_logits", ablated_logits)
    dtype = torch.promote_types(torch.promote_types(clean_logits.dtype, ablated_logits.dtype), torch.float32)
    vocabulary = clean_logits.shape[-1]
    clean, ablated = clean_logits.reshape(-1, vocabulary), ablated_logits.reshape(-1, vocabulary)

    def logits_of(logits: Tensor, tokens: slice) -> LogitsOf:
        return lambda part: logits[tokens, part].to(dtype)

    return _joined(
        [
            compared(logits_of(clean, tokens), logits_of(ablated, tokens), vocabulary, VOCABULARY_CHUNK)
            for tokens in slices(len(clean), TOKEN_CHUNK)
        ],
        clean_logits.shape[:-1],
    )


def _joined(parts: list[Tensor], shape: torch.Size) -> ViewComparison:
    kl, jsd, clean_entropy, ablated_entropy = torch.cat(parts, dim=-1).unbind()
    return ViewComparison(
        kl=kl.clamp(min=0.0).view(shape),
        jsd=jsd.clamp(0.0, math.log(2.0)).view(shape),
        clean_entropy=clean_entropy.reshape(shape),
        ablated_entropy=ablated_entropy.reshape(shape),
    )


def _check_pair(clean_name: str, clean: Tensor, ablated_name: str, ablated: Tensor) -> None:
    if clean.ndim < 1 or clean.shape[-1] == 0:
        raise ValueError(f"{clean_name} has shape {tuple(clean.shape)}; its last dimension must not be empty")
    if ablated.shape != clean.shape:
        raise ValueError(
            f"{ablated_name} has shape {tuple(ablated.shape)}; it must equal {clean_name}'s {tuple(clean.shape)}"
        )
    for name, value in ((clean_name, clean), (ablated_name, ablated)):
        if not value.is_floating_point():
            raise ValueError(f"{name} has dtype {value.dtype}; it must be a floating-point tensor")


def _check_head(clean: Tensor, ablated: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if clean.ndim != 2:
        raise ValueError(f"clean_hidden has shape {tuple(clean.shape)}; it must be (N, D)")
    if weight.ndim != 2 or weight.shape[-1] != clean.shape[-1] or not len(weight):
        raise ValueError(f"weight has shape {tuple(weight.shape)}; it must be (V, {clean.shape[-1]})")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; it must be ({len(weight)},)")
    others = {"ablated_hidden": ablated, "weight": weight, "bias": bias}
    for name, value in others.items():
        if value is not None and value.dtype != clean.dtype and not torch.is_autocast_enabled(clean.device.type):
            raise ValueError(f"{name} has dtype {value.dtype}; it must be clean_hidden's {clean.dtype}")


def _check_chunks(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size!r}; it must be >= 1")
