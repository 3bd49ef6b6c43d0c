# SPDX-License-Identifier: Apache-2.0
"""The soft penalty of overlong responses of DAPO (arXiv 2503.14476, section 3.4)."""


def overlong(length: int, limit: int, buffer: int) -> float:
    """Penalty between 0 and 1: 0 up to ``limit - buffer``, then linear, 1 from ``limit`` on.

    All three are in one unit, with ``0 < buffer <= limit``. The paper adds the negative of this to the reward.
    """
    return min(max((length - (limit - buffer)) / buffer, 0.0), 1.0)
