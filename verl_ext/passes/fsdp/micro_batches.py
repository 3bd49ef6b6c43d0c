# SPDX-License-Identifier: Apache-2.0
"""Micro-batches of at most so many tokens that keep groups together, every shared token counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name

from verl_ext.passes.prompt_groups import Rows, pays, prompt_groups

MicroBatches = tuple[list[TensorDict], list[Rows] | None]
Bin = list[Rows]
"""Some parts of groups, which are run together."""


@dataclass(frozen=True)
class Sizes:
    """Lengths of prompts and responses, by row."""

    prompts: Sequence[int]
    responses: Sequence[int]

    def of(self, rows: Rows) -> int:
        """Tokens of some rows of one group."""
        prompt, responses = self.prompts[rows[0]], [self.responses[row] for row in rows]
        return sum(responses) + prompt * (1 if pays(prompt, responses) else len(rows))

    def of_all(self, parts: Iterable[Rows]) -> int:
        """Tokens of some parts of groups."""
        return sum(map(self.of, parts))


def by_group(own: Callable[..., MicroBatches]) -> Callable[..., MicroBatches]:
    """verl's `prepare_micro_batches` for one that keeps groups together, where a budget of tokens decides.

    Micro-batches of a fixed number of rows stay verl's: consecutive rows, which the trainer has ordered by group.
    """

    def prepare_micro_batches(data: TensorDict, dp_group: Any = None, **kwargs: Any) -> MicroBatches:
        dynamic = tu.get_non_tensor_data(data=data, key="use_dynamic_bsz", default=True)
        lengths = data["input_ids"].offsets().diff().tolist()
        if not dynamic or max(lengths) > data["max_token_len_per_gpu"]:  # which verl refuses in its own words
            return own(data=data, dp_group=dp_group, **kwargs)
        responses = data["responses"].offsets().diff().tolist()
        groups = prompt_groups(data)
        sizes = Sizes([length - each for length, each in zip(lengths, responses, strict=True)], responses)
        bins = in_bins(groups, sizes, data["max_token_len_per_gpu"])
        bins = in_more_bins(bins, sizes, _most_of_any_rank(len(bins), dp_group))
        rows = [[row for part in parts for row in part] for parts in bins]
        return [tu.index_select_tensor_dict(data, each) for each in rows], rows

    return prepare_micro_batches


def in_bins(groups: Iterable[Rows], sizes: Sizes, most: int) -> list[Bin]:
    """Few bins of at most `most` tokens, about equally full, the fullest first.

    Args:
        groups: the rows of each group; no row alone has more than `most` tokens.
        sizes: of the rows.
        most: tokens that a bin may have.
    """
    parts = sorted((part for rows in groups for part in _parts(rows, sizes, most)), key=sizes.of, reverse=True)
    first_fit = _filled(
        parts, sizes, lambda loads, size: next((i for i, load in enumerate(loads) if load + size <= most), None)
    )
    count = len(first_fit)
    even = _filled(parts, sizes, lambda loads, _size: loads.index(min(loads)) if len(loads) == count else None)
    chosen = even if all(sizes.of_all(each) <= most for each in even) else first_fit
    return sorted(chosen, key=sizes.of_all, reverse=True)


def _filled(parts: Iterable[Rows], sizes: Sizes, choose: Callable[[list[int], int], int | None]) -> list[Bin]:
    """The parts in bins, each in the one that `choose` names by the bins' tokens and its own, or in a new one."""
    bins: list[Bin] = []
    loads: list[int] = []
    for part in parts:
        size = sizes.of(part)
        chosen = choose(loads, size)
        if chosen is None:
            chosen = len(bins)
            bins.append([])
            loads.append(0)
        bins[chosen].append(part)
        loads[chosen] += size
    return bins


def in_more_bins(bins: list[Bin], sizes: Sizes, count: int) -> list[Bin]:
    """The same rows in `count` bins, as many as another rank needs.

    Raises:
        ValueError: there are fewer rows.
    """
    bins = list(bins)
    while len(bins) < count:
        fullest = max(bins, key=lambda parts: (sum(map(len, parts)) > 1, sizes.of_all(parts)))
        bins.remove(fullest)
        bins += _halves(fullest)
    return sorted(bins, key=sizes.of_all, reverse=True)


def _parts(rows: Rows, sizes: Sizes, most: int) -> list[Rows]:
    """A group in as few parts as have at most `most` tokens each."""
    parts = [rows[:1]]
    for row in rows[1:]:
        if sizes.of([*parts[-1], row]) <= most:
            parts[-1] = [*parts[-1], row]
        else:
            parts.append([row])
    return parts


def _halves(parts: Bin) -> list[Bin]:
    if len(parts) > 1:
        return [parts[::2], parts[1::2]]
    (rows,) = parts
    if len(rows) < 2:
        raise ValueError("another rank needs more micro-batches than this one has rows")
    return [[rows[: len(rows) // 2]], [rows[len(rows) // 2 :]]]


def _most_of_any_rank(count: int, group: Any) -> int:
    """FSDP's ranks run equally many micro-batches."""
    if not dist.is_initialized():
        return count
    counts = torch.tensor([count], device=get_device_name())
    dist.all_reduce(counts, op=dist.ReduceOp.MAX, group=group)
    return int(counts.item())
