# SPDX-License-Identifier: Apache-2.0
"""Which rows of a source go into which file."""

import random
from dataclasses import dataclass

from verl_ext.data.source import TRAIN, Source
from verl_ext.errors import DataError

HELD_OUT = "val"
"""The file of rows that are held out of training where there is no split for it."""


@dataclass(frozen=True)
class Part:
    """Rows of one file.

    Attributes:
        name: of the file, without suffix.
        split: of the source.
        positions: the rows of that split, counted from 0.
        first_index: `extra_info.index` of the split's row 0.
    """

    name: str
    split: str
    positions: frozenset[int]
    first_index: int

    @property
    def is_train(self) -> bool:
        """Whether the rows are for training; all others are held out."""
        return self.name == TRAIN


def parts_of(source: Source, *, limit: int | None, val_size: int, seed: int) -> tuple[list[Part], int]:
    """The files to write, what is held out first, and the number of rows of the whole source.

    Args:
        source: what is converted.
        limit: reads only the first rows of each split, so many.
        val_size: so many rows of `train` go to `val`, picked at random.
        seed: of the pick.

    Raises:
        DataError: rows are to be held out where a split for that exists, or more than there are.
    """
    parts: list[Part] = []
    total = 0
    for split in source.splits:
        count = source.count(split)
        read = count if limit is None else min(limit, count)
        parts.append(Part(split, split, frozenset(range(read)), total))
        total += count
    if val_size:
        parts = _with_validation(parts, val_size, seed)
    return sorted(parts, key=lambda part: part.is_train), total


def _with_validation(parts: list[Part], size: int, seed: int) -> list[Part]:
    if [part.split for part in parts] != [TRAIN]:
        raise DataError(f"val_size={size}: the source has {', '.join(part.split for part in parts)} of its own")
    (train,) = parts
    if size >= len(train.positions):
        raise DataError(f"val_size={size}: must be less than {len(train.positions)}, the number of rows")
    picked = frozenset(random.Random(f"{seed}/{HELD_OUT}").sample(sorted(train.positions), size))
    return [
        Part(HELD_OUT, TRAIN, picked, train.first_index),
        Part(TRAIN, TRAIN, train.positions - picked, train.first_index),
    ]
