# SPDX-License-Identifier: Apache-2.0
"""Do the rollout engine and the actor compute the same policy?"""

from __future__ import annotations

import torch
from torch import Tensor

EXPLANATION = (
    "The rollout engine and the actor disagree on the tokens that were sampled, so the images or weights that the "
    "rollout sees are not the actor's. Known causes: actor_rollout_ref.rollout.load_format=dummy with a vLLM that "
    "keeps the image mean and std as buffers, which weight updates never restore (write "
    "actor_rollout_ref.rollout.load_format=auto); other image resizing limits in the rollout; a failed weight update. "
    "Low-precision rollouts agree to about 0.99. Lower perception.min_rollout_correlation, or set it to null, to go on."
)


class RolloutMismatchError(RuntimeError):
    """The rollout's policy is not the actor's."""


def log_prob_correlation(rollout_log_prob: Tensor, actor_log_prob: Tensor, response_mask: Tensor) -> float:
    """Pearson correlation over the valid tokens.

    Args:
        rollout_log_prob, actor_log_prob: (B, T) floating point.
        response_mask: (B, T), non-zero where the token counts.

    Returns:
        The correlation; 1.0 where it is undefined (fewer than two tokens, or one side constant) and both sides agree
        to 1e-3, else 0.0.
    """
    valid = response_mask != 0
    x, y = rollout_log_prob[valid].double(), actor_log_prob[valid].double()
    if x.numel() < 2 or x.std() == 0 or y.std() == 0:
        return 1.0 if torch.allclose(x, y, atol=1e-3) else 0.0
    return torch.corrcoef(torch.stack([x, y]))[0, 1].item()


def require_agreement(correlation: float, bound: float | None, step: int) -> None:
    """Stop a run whose rollout no longer samples from the actor's policy.

    Raises:
        RolloutMismatchError: `correlation` is below `bound` or not a number.
    """
    if bound is not None and not correlation >= bound:
        raise RolloutMismatchError(
            f"step {step}: the correlation of rollout and actor log-probabilities is {correlation:.4f}, below "
            f"perception.min_rollout_correlation={bound}. {EXPLANATION}"
        )
