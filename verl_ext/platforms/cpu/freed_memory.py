# SPDX-License-Identifier: Apache-2.0
"""Freed memory that goes back to the machine: what C's allocator keeps of it grows with the length of a run."""

from __future__ import annotations

import ctypes
import time

SECONDS_BETWEEN_RETURNS = 60.0
"""verl asks several times a step, and a step needs most of what it freed again: fetching it anew costs time."""

# glibc's; other C libraries have none.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


class FreedMemory:
    """Of this process."""

    def __init__(self) -> None:
        self._returned = float("-inf")

    def give_back(self) -> None:
        """Do so, unless it was done less than a minute ago."""
        now = time.monotonic()
        if _malloc_trim is not None and now - self._returned >= SECONDS_BETWEEN_RETURNS:
            self._returned = now
            _malloc_trim(0)
