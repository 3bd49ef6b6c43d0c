# SPDX-License-Identifier: Apache-2.0
"""verl looks for finished rollouts every 2 s, longer than a whole training step of a model that fits a laptop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from verl_ext.platforms.cpu.patching import replace_symbol

POLL_INTERVAL_S = 0.1


def patch(module: ModuleType) -> None:
    """Replace the default `poll_interval` of `verl.trainer.ppo.v1.replay_buffer.ReplayBuffer` (verl 0.9)."""
    replace_symbol(
        module.ReplayBuffer,
        "__init__",
        _with_short_poll,
        reason="verl's poll of 2 s outlasts a training step on the CPU",
    )


def _with_short_poll(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{"poll_interval": POLL_INTERVAL_S, **kwargs})

    return __init__
