# SPDX-License-Identifier: Apache-2.0
"""A micro-batch in which every prompt and its pictures stand once: `[prompt, response 1, ..., response n]` a group.

The first response follows its prompt; the others go on from the same prompt by their positions, see
:mod:`verl_ext.attention.segments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.tensordict_utils import maybe_fix_3d_position_ids

from verl_ext.passes.prompt_groups import Rows, pays, prompt_groups
from verl_ext.signals.layout import TokenLayout
from verl_ext.vocabulary import SHARE_PROMPTS, SHARED_PROMPTS


@dataclass(frozen=True, eq=False)
class SharedPrompts:
    """Where the tokens of a micro-batch stand once its prompts are shared; everything on the host.

    Attributes:
        groups: the rows of each sequence of `batch`, in order.
        batch: what verl prepares its model's inputs from; a row a group.
        tokens: (N,) long; positions of all response tokens, in the order of the rows.
        predictors: (N,) long; positions of the states that they were drawn from.
        token_rows: (N,) long; the row of each.
        prompt_begins, prompt_lengths: of each row, where its prompt stands.
    """

    groups: tuple[Rows, ...]
    batch: TensorDict
    tokens: Tensor
    predictors: Tensor
    token_rows: Tensor
    prompt_begins: tuple[int, ...]
    prompt_lengths: tuple[int, ...]

    @property
    def saved(self) -> Tensor:
        """(rows,) long: prompt tokens of each row that another row computes."""
        saved = torch.tensor(self.prompt_lengths)
        saved[[rows[0] for rows in self.groups]] = 0
        return saved

    def layout(self, vision_token_ids: Sequence[int], device: Any) -> TokenLayout:
        """The tokens among the positions that the model computes; rows of a group have the same image tokens."""
        ids = self.batch["input_ids"].values()
        is_image = torch.isin(ids, torch.tensor(vision_token_ids, dtype=ids.dtype, device=ids.device))
        prompts = zip(self.prompt_begins, self.prompt_lengths, strict=True)
        images = [begin + is_image[begin : begin + length].nonzero().flatten() for begin, length in prompts]
        counts = torch.tensor([len(places) for places in images])
        return TokenLayout(
            tokens=self.tokens.to(device),
            token_rows=self.token_rows.to(device),
            images=torch.cat(images).to(device),
            image_rows=torch.repeat_interleave(torch.arange(len(images)), counts).to(device),
            rows=len(images),
        )


def shared_prompts(micro_batch: TensorDict) -> SharedPrompts | None:
    """How the prompts of a micro-batch are shared; None where they are not, or nothing would be saved.

    Found once: the result is left in the micro-batch.

    Args:
        micro_batch: `input_ids`, `position_ids`, `responses` (jagged), `multi_modal_inputs`, and the setting
            `SHARE_PROMPTS`, without which nothing is shared.
    """
    if not tu.get_non_tensor_data(data=micro_batch, key=SHARE_PROMPTS, default=False):
        return None
    if SHARED_PROMPTS not in micro_batch:
        tu.assign_non_tensor(micro_batch, **{SHARED_PROMPTS: _share(micro_batch)})
    found: SharedPrompts | None = tu.get_non_tensor_data(data=micro_batch, key=SHARED_PROMPTS, default=None)
    return found


def forget_sharing(micro_batch: TensorDict) -> None:
    """Have what is shared found anew, for a micro-batch whose prompts or pictures are others now."""
    if SHARED_PROMPTS in micro_batch:
        del micro_batch[SHARED_PROMPTS]


def _share(micro_batch: TensorDict) -> SharedPrompts | None:
    maybe_fix_3d_position_ids(micro_batch)
    lengths = micro_batch["input_ids"].offsets().diff().tolist()
    responses = micro_batch["responses"].offsets().diff().tolist()
    prompts = [length - response for length, response in zip(lengths, responses, strict=True)]
    groups = [part for rows in prompt_groups(micro_batch) for part in _worthwhile(rows, prompts, responses)]
    if len(groups) == len(lengths):
        return None
    begins, firsts = _places(groups, prompts, responses)
    tokens = [torch.arange(first, first + length) for first, length in zip(firsts, responses, strict=True)]
    predictors = [run - 1 for run in tokens]
    for row, run in enumerate(predictors):
        run[:1] = begins[row] + prompts[row] - 1
    return SharedPrompts(
        groups=tuple(groups),
        batch=_packed(micro_batch, groups, prompts),
        tokens=torch.cat(tokens),
        predictors=torch.cat(predictors),
        token_rows=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(responses)),
        prompt_begins=tuple(begins),
        prompt_lengths=tuple(prompts),
    )


def _worthwhile(rows: Rows, prompts: Sequence[int], responses: Sequence[int]) -> list[Rows]:
    """The group as it is, or its rows apart."""
    return [rows] if pays(prompts[rows[0]], [responses[row] for row in rows]) else [[row] for row in rows]


def _places(groups: Sequence[Rows], prompts: Sequence[int], responses: Sequence[int]) -> tuple[list[int], list[int]]:
    """Where the prompt of each row begins, and where its first response token stands."""
    begins, firsts = [0] * len(prompts), [0] * len(prompts)
    free = 0
    for rows in groups:
        begin = free
        free += prompts[rows[0]]
        for row in rows:
            begins[row], firsts[row] = begin, free
            free += responses[row]
    return begins, firsts


def _packed(micro_batch: TensorDict, groups: Sequence[Rows], prompts: Sequence[int]) -> TensorDict:
    """A row a group: its first row, followed by the responses of the others."""
    ids, positions = micro_batch["input_ids"].unbind(), micro_batch["position_ids"].unbind()
    parts = [[(row, prompts[row] if place else 0) for place, row in enumerate(rows)] for rows in groups]
    sequences = [torch.cat([ids[row][start:] for row, start in rows]) for rows in parts]
    places = [torch.cat([positions[row][..., start:] for row, start in rows], dim=-1) for rows in parts]
    batch = tu.index_select_tensor_dict(micro_batch, [rows[0] for rows in groups])
    batch["input_ids"] = tu.nested_tensor_from_tensor_list(sequences)
    batch["position_ids"] = tu.nested_tensor_from_tensor_list(places)
    tu.assign_non_tensor(batch, use_remove_padding=True)
    return batch
