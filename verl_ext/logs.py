# SPDX-License-Identifier: Apache-2.0
"""Loggers whose warnings arrive.

verl gives its own logger a handler in the training process because other libraries reconfigure the root logger there
and silence it. Loggers below verl's share that handler.
"""

from __future__ import annotations

import logging


def get_logger(name: str) -> logging.Logger:
    """The logger of a module of this package; call it with `__name__`."""
    return logging.getLogger(f"verl.plugins.{name}")
