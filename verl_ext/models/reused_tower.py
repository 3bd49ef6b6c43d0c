# SPDX-License-Identifier: Apache-2.0
"""Forwards that stand in for a frozen vision tower's own, and know the pictures that it has seen before.

FSDP gathers a tower's weights on all ranks at once. In one pass therefore either every rank runs the tower once in
every micro-batch, if need be on a dummy, or none does: all ranks take the same of the forwards below.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from verl_ext.models.picture_identity import Picture, pictures_of
from verl_ext.models.tower_features import FeatureStore, Seen, cut, joined, read
from verl_ext.models.vision_tower import tower_forward_replaced, vision_tower

DUMMY = (1, 4, 4)
"""Grid of the picture that verl has the tower run on where a micro-batch has none; its rows are zeros."""


class TowerForward:
    """A forward with a memory.

    Args:
        own: the tower's own forward.
        store: what is known, and where to keep what is found.
        dtype: in which pictures are told apart: the least precise that the tower may be given them in.

    Attributes:
        own: the tower's own forward.
        compared: how many pictures were compared with what is known of them.
        difference: the largest difference found, relative to the features' norm.
        bound: what rounding may make of it.
    """

    def __init__(self, own: Callable[..., Any], store: FeatureStore, dtype: torch.dtype) -> None:
        self.own, self._store, self._dtype = own, store, dtype
        self.compared, self.difference, self.bound = 0, 0.0, 0.0

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
        """The features of some pictures.

        Args:
            pixel_values: (N, D) patch rows.
            grid_thw: (pictures, 3) long.
            kwargs: for the tower's own forward.
        """
        if _is_dummy(pixel_values, grid_thw):
            return self.of_dummy(pixel_values, grid_thw, **kwargs)
        return self.of(pictures_of(pixel_values.to(self._dtype), grid_thw), pixel_values, grid_thw, **kwargs)

    def of_dummy(self, pixel_values: Tensor, grid: Tensor, **kwargs: Any) -> Any:
        """What stands for no picture at all."""
        return self.own(pixel_values, grid_thw=grid, **kwargs)

    def of(self, pictures: list[Picture], pixel_values: Tensor, grid: Tensor, **kwargs: Any) -> Any:
        """The features of `pictures`, whose rows are `pixel_values`."""
        raise NotImplementedError


class Compared(TowerForward):
    """Runs the tower as ever, keeps what it finds and compares it with what is known already."""

    def of(self, pictures: list[Picture], pixel_values: Tensor, grid: Tensor, **kwargs: Any) -> Any:
        """The tower's own output."""
        output = self.own(pixel_values, grid_thw=grid, **kwargs)
        for picture, seen in zip(pictures, cut(read(output), grid), strict=True):
            if picture in self._store:
                self._compare(self._store[picture], seen)
            self._store.add(picture, seen)
        return output

    def _compare(self, known: Seen, seen: Seen) -> None:
        self.compared += 1
        for before, now in zip(known.tensors, seen.tensors, strict=True):
            self.bound = torch.finfo(now.dtype).eps ** 0.5
            apart = (before.to(now.device).float() - now.float()).norm() / now.float().norm()
            self.difference = max(self.difference, apart.nan_to_num(torch.inf).item())


class NewOnly(TowerForward):
    """Runs the tower once in each call, on pictures that are not known: on a dummy if there is none."""

    def of(self, pictures: list[Picture], pixel_values: Tensor, grid: Tensor, **kwargs: Any) -> Seen:
        """Known features and new ones."""
        rows = dict(zip(pictures, pixel_values.split(grid.prod(-1).tolist()), strict=True))
        grids = dict(zip(pictures, grid, strict=True))
        new = [picture for picture in rows if picture not in self._store]
        found: dict[Picture, Seen] = {}
        if new:
            new_grid = torch.stack([grids[picture] for picture in new])
            output = self.own(torch.cat([rows[picture] for picture in new]), grid_thw=new_grid, **kwargs)
            found = dict(zip(new, cut(read(output), new_grid), strict=True))
        else:
            self.own(*_dummy_like(pixel_values, grid), **kwargs)
        for picture, seen in found.items():
            self._store.add(picture, seen)
        features = [found[picture] if picture in found else self._store[picture] for picture in pictures]
        return joined(features, pixel_values.device)


class KnownOnly(TowerForward):
    """Never runs the tower."""

    def of_dummy(self, pixel_values: Tensor, grid: Tensor, **kwargs: Any) -> Seen:
        """Zero, of which verl adds 0 times the mean."""
        return Seen(pixel_values.new_zeros(1))

    def of(self, pictures: list[Picture], pixel_values: Tensor, grid: Tensor, **kwargs: Any) -> Seen:
        """Known features.

        Raises:
            KeyError: a picture is not known, though all were when the pass began.
        """
        return joined([self._store[picture] for picture in pictures], pixel_values.device)


def run_own_tower(model: torch.nn.Module) -> AbstractContextManager[None]:
    """While open, the tower runs on whatever it is given and nothing is kept: for pictures that come only once."""
    tower = vision_tower(model)
    forward = None if tower is None else tower.__dict__.get("forward")
    if tower is None or not isinstance(forward, TowerForward):
        return nullcontext()
    return tower_forward_replaced(tower, forward.own)


def _is_dummy(pixel_values: Tensor, grid: Tensor) -> bool:
    frames, height, width = DUMMY
    return len(grid) == 1 and len(pixel_values) == frames * height * width and not bool(pixel_values.any())


def _dummy_like(pixel_values: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    frames, height, width = DUMMY
    return pixel_values.new_zeros(frames * height * width, pixel_values.shape[1]), grid.new_tensor([DUMMY])
