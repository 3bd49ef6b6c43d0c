# SPDX-License-Identifier: Apache-2.0
"""The features of a frozen vision tower, computed once a step on a worker and reused by all passes over its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor
from torch.distributed.tensor import DTensor
from verl.utils.device import get_device_id

from verl_ext.logs import get_logger
from verl_ext.models.picture_identity import Picture, fingerprint, pictures_of
from verl_ext.models.reused_tower import Compared, KnownOnly, NewOnly, TowerForward
from verl_ext.models.tower_features import FeatureStore
from verl_ext.models.vision_tower import tower_forward_replaced, vision_tower
from verl_ext.passes.row_inputs import row_inputs

OLD_LOG_PROBS, REFERENCE, UPDATE = "old log-probs", "reference", "update"
"""Passes that may reuse features."""

PIXELS = (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw"))
GIGABYTE = 10**9
COLUMNS = 512

logger = get_logger(__name__)


class TowerReuse:
    """The features of a step, and which passes may use them.

    Each kind of pass is compared with the plain tower the first time that it meets a picture again: in all of its
    micro-batches the tower runs as ever. If the difference is more than rounding makes, such passes go on without.
    """

    def __init__(self, gigabytes: float) -> None:
        self._store = FeatureStore(int(gigabytes * GIGABYTE))
        self._compared: set[str] = set()
        self._without: set[str] = set()

    def release(self) -> None:
        """Let go of all features: the step is over."""
        self._store.clear()

    def forget(self, without: Iterable[str] = ()) -> None:
        """Other weights may have been loaded: let go of all features, and compare anew.

        Args:
            without: passes that have another tower from now on.
        """
        self.release()
        self._compared.clear()
        self._without = set(without)

    @contextmanager
    def over(self, engine: Any, data: TensorDict, kind: str) -> Iterator[None]:
        """While open, the tower of `engine` runs only where it must. Every rank must open it for the same pass.

        Args:
            engine: one of verl's FSDP engines with a frozen tower.
            data: the rows of the pass on this rank, with their pictures.
            kind: of the pass.
        """
        tower = vision_tower(engine.module) if self._store.budget else None
        if tower is None or kind in self._without:
            yield
            return
        dtype = _least_precise(engine, tower)
        forward = self._forward(kind, data, dtype)(tower.forward, self._store, dtype)
        with tower_forward_replaced(tower, forward):
            yield
        if isinstance(forward, Compared):
            self._judge(forward, kind)

    def _forward(self, kind: str, data: TensorDict, dtype: torch.dtype) -> type[TowerForward]:
        """What all ranks run in the pass."""
        if kind not in self._compared:
            return Compared
        known = all(picture in self._store for picture in self._pictures(data, dtype))
        return KnownOnly if _everywhere(known) else NewOnly

    def _pictures(self, data: TensorDict, dtype: torch.dtype) -> Iterator[Picture]:
        """The pictures of all rows; rows that share a tensor are looked at once."""
        seen: set[int] = set()
        for row in row_inputs(data):
            for pixels, grid in PIXELS:
                if row.get(pixels) is not None and id(row[pixels]) not in seen:
                    seen.add(id(row[pixels]))
                    rows = row[pixels].to(get_device_id()) if len(self._store) else None
                    yield from [()] if rows is None else pictures_of(rows.to(dtype), row[grid])

    def _judge(self, forward: Compared, kind: str) -> None:
        """Decide, on all ranks alike, whether passes of this kind may reuse features."""
        found = torch.tensor([forward.compared, forward.difference, forward.bound], device=get_device_id())
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        compared, difference, bound = found.tolist()
        if not compared:
            return
        if difference <= bound:
            self._compared.add(kind)
            logger.info("features of the frozen tower differ by %.1e (relative) in the %s pass", difference, kind)
            return
        self._without.add(kind)
        logger.warning(
            "features of the frozen tower differ by %.1e (relative; bound %.0e) in the %s pass, which goes on without "
            "reusing them, as with perception.tower_cache_gb=0",
            difference,
            bound,
            kind,
        )


def tower_weights(engine: Any) -> list[int]:
    """A hash of this rank's part of each of the tower's parameters."""
    tower = vision_tower(engine.module)
    parameters = () if tower is None else tower.parameters()
    return [int(fingerprint(_in_rows(parameter.detach()))) for parameter in parameters]


def same_everywhere(before: list[int], after: list[int]) -> bool:
    """Whether no rank's tower has changed; every rank must ask."""
    return _everywhere(before == after)


def _everywhere(here: bool) -> bool:
    found = torch.tensor([int(here)], device=get_device_id())
    dist.all_reduce(found, op=dist.ReduceOp.MIN)
    return bool(found.item())


def _least_precise(engine: Any, tower: torch.nn.Module) -> torch.dtype:
    """Of the dtypes that pixels may be cast to on their way into the tower: weights in store, weights in use."""
    stored = next(parameter.dtype for parameter in tower.parameters() if parameter.is_floating_point())
    used: torch.dtype = engine._autocast_dtype
    return min(stored, used, key=lambda dtype: dtype.itemsize)


def _in_rows(parameter: Tensor) -> Tensor:
    flat = (parameter.to_local() if isinstance(parameter, DTensor) else parameter).flatten()
    return torch.nn.functional.pad(flat, (0, -len(flat) % COLUMNS)).view(-1, COLUMNS)
