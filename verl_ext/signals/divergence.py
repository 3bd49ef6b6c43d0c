# SPDX-License-Identifier: Apache-2.0
"""How much more likely a sampled token is with the image than without it."""

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
K3_LIMIT = 10.0


def sampled_k3(log_prob: Tensor, ablated_log_prob: Tensor) -> Tensor:
    """The k3 estimate of KL(clean view || ablated view) at the sampled tokens.

    With ``d = clamp(ablated_log_prob - log_prob, -20, 20)`` the result is ``clamp(exp(d) - d - 1, 0, 10)``.

    The value is unbiased for KL(clean || ablated) on tokens drawn from the clean view. The gradient with respect to
    ``log_prob`` is ``1 - exp(d)``, exactly 0 once the value exceeds 10; its expectation is that of
    KL(ablated || clean). A token that is impossible in both views (``-inf`` twice) carries no evidence: value and
    gradient are 0. A NaN in an input stays NaN.

    Args:
        log_prob: any shape, any floating dtype; log-probabilities under the true image.
        ablated_log_prob: same shape; log-probabilities of the same tokens under the ablated image.

    Returns:
        Same shape, float32 (float64 if an input is float64), differentiable in both arguments.

    Raises:
        ValueError: the shapes differ, or an argument is not floating point.

    Source: PAPO (arXiv 2507.06448), ``verl/trainer/core_algos.py:compute_kl``, "low_var_kl".
    """
    _check(log_prob, ablated_log_prob)
    dtype = torch.promote_types(torch.promote_types(log_prob.dtype, ablated_log_prob.dtype), torch.float32)
    clean, ablated = log_prob.to(dtype), ablated_log_prob.to(dtype)
    indeterminate = torch.isneginf(clean) & torch.isneginf(ablated)
    delta = (ablated - clean).masked_fill(indeterminate, 0.0).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    # expm1 keeps the digits that exp(d) - d - 1 cancels away when the two views almost agree.
    return (torch.expm1(delta) - delta).clamp(0.0, K3_LIMIT)


def _check(log_prob: Tensor, ablated_log_prob: Tensor) -> None:
    if log_prob.shape != ablated_log_prob.shape:
        raise ValueError(
            f"ablated_log_prob has shape {tuple(ablated_log_prob.shape)}; it must equal log_prob's "
            f"{tuple(log_prob.shape)}"
        )
    for name, value in (("log_prob", log_prob), ("ablated_log_prob", ablated_log_prob)):
        if not value.is_floating_point():
            raise ValueError(f"{name} has dtype {value.dtype}; it must be a floating-point tensor")
