# SPDX-License-Identifier: Apache-2.0
"""Two runs on one machine, each with its own Ray, send their weights to vLLM through sockets of their own.

verl names the socket after Ray's job id so that runs do not collide, but the first job of every Ray has the same id.
Where both runs send at a time, one removes the other's socket, the weights go to the wrong engine, and both wait for
ever.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from verl_ext.platforms.cpu.patching import replace_symbol

RAYLET = "RAY_RAYLET_PID"
"""Set by Ray in every process below a node, so the same where weights are sent and where they are received."""
REASON = "two runs on one machine would share a socket"


def patch_sender(module: ModuleType) -> None:
    """Wrap `verl.workers.rollout.vllm_rollout.vllm_rollout.ServerAdapter.__init__` (verl 0.9)."""
    replace_symbol(module.ServerAdapter, "__init__", _sends_there, reason=REASON)


def patch_receiver(module: ModuleType) -> None:
    """Wrap `verl.workers.rollout.vllm_rollout.utils.vLLMColocateWorkerExtension._get_zmq_handle` (verl 0.9)."""
    replace_symbol(module.vLLMColocateWorkerExtension, "_get_zmq_handle", _receives_there, reason=REASON)


def _sends_there(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.zmq_handle = _own(self.zmq_handle)

    return __init__


def _receives_there(original: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(original)
    def _get_zmq_handle(self: Any) -> str:
        return _own(original(self))

    return _get_zmq_handle


def _own(handle: str) -> str:
    if RAYLET not in os.environ:
        raise RuntimeError(f"this release of Ray does not set {RAYLET}, which names the socket that sends the weights")
    return f"{handle.removesuffix('.sock')}-raylet-{os.environ[RAYLET]}.sock"
