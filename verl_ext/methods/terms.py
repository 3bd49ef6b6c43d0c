# SPDX-License-Identifier: Apache-2.0
"""Loss terms that several methods have."""

from __future__ import annotations

from verl_ext.methods.base import LossInputs, LossTerm


def sampled_entropy_term(inputs: LossInputs, coef: float) -> LossTerm:
    """Mean negative log-likelihood of the sampled tokens: with a positive `coef` it keeps the entropy low.

    The released codes call it an entropy loss. On tokens drawn from the present policy its expected gradient is zero;
    it acts through the finite sample, the selection of groups and the drift within a step.
    """
    surprise = -inputs.log_prob.masked_fill(~inputs.response_mask, 0.0)
    return LossTerm("entropy", surprise, coef, token_mean=True)
