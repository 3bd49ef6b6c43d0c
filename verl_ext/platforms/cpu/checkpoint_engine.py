# SPDX-License-Identifier: Apache-2.0
"""Weights from the actor to a rollout on other devices, which verl's own transports move between accelerators only.

Chosen by `actor_rollout_ref.rollout.checkpoint_engine.backend=tcp`. The first actor rank serves a TCP store and the
rollout's workers read from it: right for models that fit a laptop.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Generator
from typing import Any

import ray
import torch
from torch.distributed import TCPStore
from verl.checkpoint_engine import CheckpointEngine, CheckpointEngineRegistry

END = b"end"


@CheckpointEngineRegistry.register("tcp")
class TCPCheckpointEngine(CheckpointEngine):
    """One weight a key, in order; `END` behind the last.

    Args:
        bucket_size: not used, since nothing is put together.
        is_master: whether this is the first actor rank, which sends.
    """

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        self._is_master = is_master
        self._store: TCPStore | None = None

    def prepare(self) -> dict[str, Any]:
        """Where the store is; nothing for those who read."""
        if not self._is_master:
            return {}
        host = ray.util.get_node_ip_address().strip("[]")
        self._store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        return {"host": host, "port": self._store.port}

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict[str, Any]]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Everyone learns where the store is."""
        return {"store": [metadata[0]] * actor_wg_world_size}, {"store": [metadata[0]] * rollout_world_size}

    def init_process_group(self, store: dict[str, Any]) -> None:  # type: ignore[override]
        """Connect to the store at `store["host"]` and `store["port"]`."""
        if self._store is None:
            self._store = TCPStore(store["host"], store["port"], is_master=False, wait_for_workers=False)

    def finalize(self) -> None:
        """Close the store."""
        self._store = None

    async def send_weights(
        self, weights: Generator[tuple[str, torch.Tensor], None, None], global_steps: int | None = None
    ) -> None:
        """Send all weights; the other ranks only take part in gathering them."""
        assert self._store is not None
        count = 0
        for count, named in enumerate(weights, start=1):
            if self._is_master:
                self._store.set(str(count), _packed(*named))  # type: ignore[arg-type]
        if self._is_master:
            self._store.set(str(count + 1), END)  # type: ignore[arg-type]

    async def receive_weights(  # type: ignore[override]
        self, global_steps: int | None = None
    ) -> AsyncGenerator[tuple[str, torch.Tensor], None]:
        """Yield what is sent, as it comes."""
        assert self._store is not None
        count = 1
        while (packed := self._store.get(str(count))) != END:
            yield _unpacked(packed)
            count += 1


def _packed(name: str, weight: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save((name, weight.detach().cpu().contiguous()), buffer)
    return buffer.getvalue()


def _unpacked(packed: bytes) -> tuple[str, torch.Tensor]:
    name, weight = torch.load(io.BytesIO(packed), weights_only=True)
    return name, weight
