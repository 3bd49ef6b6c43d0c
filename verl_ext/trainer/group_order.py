# SPDX-License-Identifier: Apache-2.0
"""The order of a batch's rows in which the responses to a prompt lie side by side, on one rank."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from verl.utils.seqlen_balancing import calculate_workload


@dataclass(frozen=True)
class Row:
    """A row as its tag describes it.

    Attributes:
        group: what the rows of a group have in common.
        prompt, length: tokens of the prompt, and with the response.
    """

    group: Hashable
    prompt: int
    length: int


def rows_of(keys: Sequence[str], tags: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of one of verl's batches, from TransferQueue's keys (`{uid}_{session}_{output}`) and tags."""
    return [
        Row((key.rsplit("_", 2)[0], tag["prompt_len"]), tag["prompt_len"], tag["seq_len"])
        for key, tag in zip(keys, tags, strict=True)
    ]


def by_first(rows: Sequence[Row]) -> list[int]:
    """Indices of the rows, group by group in the order of their first rows."""
    first: dict[Hashable, int] = {}
    for index, row in enumerate(rows):
        first.setdefault(row.group, index)
    return sorted(range(len(rows)), key=lambda index: first[rows[index].group])


def together(rows: Sequence[Row], ranks: int, steps: int) -> list[int]:
    """Indices of the rows in an order that has groups on one rank where it can, every rank with as much to do.

    Optimizer steps keep their rows: each takes as many consecutive rows from every rank, and rows change places only
    among those of a step.

    Args:
        rows: rank by rank, equally many each, in the order in which verl has balanced them.
        ranks: of data parallelism.
        steps: how many optimizer steps an epoch has; a divisor of a rank's rows.
    """
    per_rank = len(rows) // ranks
    size = per_rank // steps
    order = [0] * len(rows)
    for step in range(steps):
        begins = [rank * per_rank + step * size for rank in range(ranks)]
        members = [index for begin in begins for index in range(begin, begin + size)]
        for begin, chosen in zip(begins, _share_out(members, rows, ranks), strict=True):
            order[begin : begin + size] = chosen
    return order


def _share_out(members: Sequence[int], rows: Sequence[Row], ranks: int) -> list[list[int]]:
    """As many rows for each rank; a group goes to the rank with the least to do, and is cut where none has room."""
    size = len(members) // ranks
    found: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0.0] * ranks

    def give(rank: int, group: list[int]) -> None:
        found[rank] += group
        loads[rank] += _work(group, rows)

    uncut: list[list[int]] = []
    for group in sorted(_groups(members, rows), key=lambda group: -_work(group, rows)):
        roomy = [rank for rank in range(ranks) if size - len(found[rank]) >= len(group)]
        if roomy:
            give(min(roomy, key=lambda rank: loads[rank]), group)
        else:
            uncut.append(group)
    for group in uncut:
        while group:
            rank = min(range(ranks), key=lambda rank: len(found[rank]))
            room = size - len(found[rank])
            give(rank, group[:room])
            group = group[room:]
    return found


def _groups(members: Sequence[int], rows: Sequence[Row]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for index in members:
        groups.setdefault(rows[index].group, []).append(index)
    return list(groups.values())


def _work(group: Sequence[int], rows: Sequence[Row]) -> float:
    """verl's estimate of what rows cost, the prompt that they share once."""
    lengths = torch.tensor([rows[index].length for index in group])
    prompts = torch.tensor([rows[index].prompt for index in group[1:]], dtype=torch.long)
    return float(calculate_workload(lengths).sum() - calculate_workload(prompts).sum())
