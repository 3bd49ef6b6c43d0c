# SPDX-License-Identifier: Apache-2.0
"""The cap that some models put on their logits behind the head."""

from __future__ import annotations

from torch import Tensor


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """``cap * tanh(logits / cap)``, elementwise; `logits` themselves for None.

    Args:
        logits: floating point.
        cap: > 0, or None.

    Raises:
        ValueError: `cap` is not above 0.

    Source: `final_logit_softcapping` of Gemma (arXiv 2408.00118, section 2).
    """
    if cap is None:
        return logits
    if not cap > 0.0:
        raise ValueError(f"logit_cap is {cap!r}; it must be above 0")
    return cap * (logits / cap).tanh()
