# SPDX-License-Identifier: Apache-2.0
"""Which rows of a micro-batch have the same prompt and the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from verl_ext.passes.row_inputs import Inputs, row_inputs

LEAST_SAVED = 0.05
"""Share of a group's tokens that must be saved for its prompt to be shared; see benchmarks/README.md."""

Rows = list[int]


def prompt_groups(batch: TensorDict) -> list[Rows]:
    """The rows of each group, in the order of their first rows; a row without siblings is a group of its own.

    Args:
        batch: `input_ids`, `position_ids`, `responses` (jagged) and `multi_modal_inputs`.
    """
    prompts, inputs = prompts_of(batch), row_inputs(batch)
    positions = batch["position_ids"].unbind()
    groups: dict[tuple[int, ...], list[Rows]] = {}
    ordered: list[Rows] = []
    for row, prompt in enumerate(prompts):
        alike = groups.setdefault(tuple(prompt.tolist()), [])
        group = next((rows for rows in alike if _same(rows[0], row, inputs, positions, len(prompt))), None)
        if group is None:
            group = []
            alike.append(group)
            ordered.append(group)
        group.append(row)
    return ordered


def prompts_of(batch: TensorDict) -> list[Tensor]:
    """The tokens of each row before its response."""
    responses = batch["responses"].offsets().diff().tolist()
    rows = batch["input_ids"].unbind()
    return [ids[: len(ids) - length] for ids, length in zip(rows, responses, strict=True)]


def saved_share(prompt: int, responses: Sequence[int]) -> float:
    """Share of a group's tokens that are not computed where its prompt is shared; all arguments are lengths."""
    saved = (len(responses) - 1) * prompt
    return saved / max(1, len(responses) * prompt + sum(responses))


def pays(prompt: int, responses: Sequence[int]) -> bool:
    """Whether sharing the prompt saves more than it costs."""
    return saved_share(prompt, responses) >= LEAST_SAVED


def _same(first: int, row: int, inputs: Sequence[Inputs], positions: Sequence[Tensor], prompt: int) -> bool:
    """Whether two rows whose prompts have the same tokens also have the same pictures and positions."""
    return _same_inputs(inputs[first], inputs[row]) and torch.equal(
        positions[first][..., :prompt], positions[row][..., :prompt]
    )


def _same_inputs(one: Inputs, other: Inputs) -> bool:
    return one.keys() == other.keys() and all(_same_value(one[name], other[name]) for name in one)


def _same_value(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)
