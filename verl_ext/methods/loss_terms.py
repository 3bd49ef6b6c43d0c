# SPDX-License-Identifier: Apache-2.0
"""Loss terms of methods, as functions of the two views' log-probabilities; PAPO's above all."""

from __future__ import annotations

import torch
from torch import Tensor

from verl_ext.methods import rows
from verl_ext.methods.base import LossInputs, LossTerm
from verl_ext.signals.divergence import sampled_k3

LOSS_AGG_MODES = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum")

EPSILON = 1e-8


def perception_loss(
    log_prob: Tensor,
    ablated_log_prob: Tensor,
    response_mask: Tensor,
    *,
    coef: float,
    clip: float | None = None,
    top_fraction: float | None = None,
    has_image: Tensor | None = None,
    loss_agg_mode: str = "token-mean",
) -> Tensor:
    """The perception term, ``-coef * aggregate(perception_values(...))``: add it to the loss.

    Tokens of image-free rows, and tokens dropped by ``top_fraction``, stay in the denominator.

    Args:
        log_prob, ablated_log_prob, response_mask, clip, top_fraction, has_image: see :func:`perception_values`.
        coef: finite, >= 0.
        loss_agg_mode: "token-mean", "seq-mean-token-mean" or "seq-mean-token-sum".

    Returns:
        Scalar, float32 (float64 if an input is), differentiable in ``log_prob``.

    Raises:
        ValueError: a shape, a dtype or a parameter is not allowed.
    """
    rows.check_non_negative("coef", coef)
    values = perception_values(
        log_prob, ablated_log_prob, response_mask, clip=clip, top_fraction=top_fraction, has_image=has_image
    )
    return -coef * _aggregate(values, response_mask != 0, loss_agg_mode)


def perception_values(
    log_prob: Tensor,
    ablated_log_prob: Tensor,
    response_mask: Tensor,
    *,
    clip: float | None = None,
    top_fraction: float | None = None,
    has_image: Tensor | None = None,
) -> Tensor:
    """The divergence K that the perception term maximises, per token.

    ``K = sampled_k3(log_prob, ablated_log_prob)``; then 0 on image-free rows; then 0 below the row's linearly
    interpolated quantile at ``1 - top_fraction`` over its valid tokens; then ``clamp(K, 0, clip)``.

    Args:
        log_prob: (B, T) floating point; current policy, true image.
        ablated_log_prob: (B, T) floating point; same tokens, ablated image. The official code holds it constant.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid. Holes are allowed.
        clip: None, or finite and > 0 (official value 0.2); no gradient where K exceeds it.
        top_fraction: None, or in (0, 1] (official value 0.2).
        has_image: None (every row has one), or (B,), non-zero where the row has an image.

    Returns:
        (B, T) float32 (float64 if an input is), differentiable in ``log_prob``, exactly 0 outside the mask.

    Raises:
        ValueError: a shape, a dtype or a parameter is outside what is listed above.
    """
    _check_tensors(log_prob, ablated_log_prob, response_mask)
    if clip is not None and not 0.0 < clip < float("inf"):
        raise ValueError(f"clip is {clip!r}; it must be None, or finite and > 0")
    if top_fraction is not None and not 0.0 < top_fraction <= 1.0:
        raise ValueError(f"top_fraction is {top_fraction!r}; it must be None, or in (0, 1]")
    counted = response_mask != 0
    if has_image is not None:
        rows.check_rows("has_image", has_image, log_prob.shape[0])
        counted = counted & (has_image != 0).unsqueeze(-1)
    # Filled before the exponential, so that garbage in the padding reaches neither value nor gradient.
    values = sampled_k3(log_prob.masked_fill(~counted, 0.0), ablated_log_prob.masked_fill(~counted, 0.0))
    if top_fraction is not None:
        threshold = _row_quantile(values.detach(), counted, 1.0 - top_fraction)
        values = values.masked_fill(~(values.detach() >= threshold), 0.0)
    return values if clip is None else values.clamp(0.0, clip)


def double_entropy_loss(
    log_prob: Tensor, ablated_log_prob: Tensor, response_mask: Tensor, *, coef: float, ablated_coef: float
) -> Tensor:
    """Mean negative log-likelihood of the sampled tokens in both views: add it to the loss.

    ``-coef * mean(log_prob) - ablated_coef * mean(ablated_log_prob)``, both token means whatever the mode of the other
    terms. It keeps both entropies LOW, as the official code does. With an ablated view computed without gradient, as
    there, its half is a constant.

    Args:
        log_prob, ablated_log_prob: (B, T) floating point.
        response_mask: (B, T) bool, integer or float; non-zero where the token is valid.
        coef, ablated_coef: finite, >= 0.

    Returns:
        Scalar, float32 (float64 if an input is), differentiable in ``log_prob``.

    Raises:
        ValueError: a shape, a dtype or a coefficient is not allowed.
    """
    _check_tensors(log_prob, ablated_log_prob, response_mask)
    rows.check_non_negative("coef", coef)
    rows.check_non_negative("ablated_coef", ablated_coef)
    valid = response_mask != 0
    return _weighted_nll(coef, log_prob, valid) + _weighted_nll(ablated_coef, ablated_log_prob, valid)


def sampled_entropy_term(inputs: LossInputs, coef: float) -> LossTerm:
    """Mean negative log-likelihood of the sampled tokens: with a positive `coef` it keeps the entropy low.

    The released codes call it an entropy loss. On tokens drawn from the present policy its expected gradient is zero;
    it acts through the finite sample, the selection of groups and the drift within a step.
    """
    surprise = -inputs.log_prob.masked_fill(~inputs.response_mask, 0.0)
    return LossTerm("entropy", surprise, coef, token_mean=True)


def _row_quantile(values: Tensor, counted: Tensor, q: float) -> Tensor:
    """(B, 1) quantile of each row's counted values, linearly interpolated; meaningless for a row without any."""
    last = (rows.row_count(counted) - 1).clamp(min=0)
    rank = last.to(values.dtype) * q
    lower = rows.kth_largest(values, counted, last + 1 - rank.floor().long())
    upper = rows.kth_largest(values, counted, last + 1 - rank.ceil().long())
    return torch.lerp(lower, upper, rank.frac())


def _weighted_nll(coef: float, log_prob: Tensor, valid: Tensor) -> Tensor:
    # A term that is off reads no token: 0 * inf would be NaN.
    return -coef * _token_mean(log_prob, valid & (coef != 0.0))


def _aggregate(values: Tensor, valid: Tensor, mode: str) -> Tensor:
    if mode == "token-mean":
        return _token_mean(values, valid)
    if mode == "seq-mean-token-mean":
        return (values.sum(dim=-1) / (valid.sum(dim=-1).to(values.dtype) + EPSILON)).mean()
    if mode == "seq-mean-token-sum":
        return values.sum(dim=-1).mean()
    raise ValueError(f"loss_agg_mode is {mode!r}; it must be one of {LOSS_AGG_MODES}")


def _token_mean(values: Tensor, valid: Tensor) -> Tensor:
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return values.masked_fill(~valid, 0.0).sum() / (valid.sum().to(values.dtype) + EPSILON)


def _check_tensors(log_prob: Tensor, ablated_log_prob: Tensor, response_mask: Tensor) -> None:
    rows.check_tokens("log_prob", log_prob, response_mask)
    if not ablated_log_prob.is_floating_point():
        raise ValueError(f"ablated_log_prob has dtype {ablated_log_prob.dtype}; it must be a floating-point tensor")
    if ablated_log_prob.shape != log_prob.shape:
        raise ValueError(
            f"ablated_log_prob has shape {tuple(ablated_log_prob.shape)}; "
            f"it must equal log_prob's {tuple(log_prob.shape)}"
        )
