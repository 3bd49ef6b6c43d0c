# SPDX-License-Identifier: Apache-2.0
"""The image-ablated view of one of verl's micro-batches, made from what the micro-batch already holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nested import nested_tensor_from_jagged
from verl.utils.tensordict_utils import maybe_fix_3d_position_ids

from verl_ext.ablation import AblationSpec, PackedSequences, ablate_pixels, drop_vision, shuffle_text
from verl_ext.ablation.seeding import generators, sample_rows
from verl_ext.models.facts import ModelFacts
from verl_ext.passes.row_inputs import Inputs, has_image, row_inputs, set_row_inputs
from verl_ext.passes.shared_prompts import forget_sharing, shared_prompts


@dataclass(frozen=True)
class Ablation:
    """An ablation ready to be applied: what to do, to which model, with which seed."""

    spec: AblationSpec
    model: ModelFacts
    seed: int

    def __call__(self, micro_batch: TensorDict, step: int, progress: float = 0.0) -> TensorDict:
        """A shallow copy of `micro_batch` whose images are ablated; the original is left as it is.

        Args:
            micro_batch: `input_ids`, `position_ids`, `prompts`, `responses` (jagged) and `multi_modal_inputs`.
            step: training step, for the seed of masks and noise.
            progress: fraction of the run in [0, 1], for strengths that change over it.
        """
        ablated = micro_batch.copy()
        forget_sharing(ablated)
        if self.spec.kind == "drop_vision":
            return self._without_vision(ablated)
        if self.spec.kind == "shuffle_text":
            return self._with_other_words(ablated, step)
        shared = shared_prompts(micro_batch)
        return self._with_other_pixels(ablated, step, progress, () if shared is None else shared.groups)

    def _without_vision(self, batch: TensorDict) -> TensorDict:
        packed = unpack(batch)
        shorter = drop_vision(packed, batch["responses"].offsets().diff(), list(self.model.vision_token_ids))
        batch["input_ids"] = nested_tensor_from_jagged(shorter.input_ids, shorter.offsets)
        batch["position_ids"] = nested_tensor_from_jagged(shorter.position_ids, shorter.offsets, jagged_dim=2)
        set_row_inputs(batch, [{} for _ in row_inputs(batch)])
        return batch

    def _with_other_pixels(
        self, batch: TensorDict, step: int, progress: float, groups: Iterable[Sequence[int]]
    ) -> TensorDict:
        prompts, responses, inputs = batch["prompts"].unbind(), batch["responses"].unbind(), row_inputs(batch)
        once = groups if self.spec.scope == "prompt" else ()
        drawn_for = {row: rows[0] for rows in once for row in rows}
        ablated: dict[int, Inputs] = {}
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            first = drawn_for.get(row, row)
            if first not in ablated:
                ablated[first] = self._ablate(inputs[row], step, progress, *self._identity(prompt, response))
        set_row_inputs(batch, [ablated[drawn_for.get(row, row)] for row in range(len(inputs))])
        return batch

    def _with_other_words(self, batch: TensorDict, step: int) -> TensorDict:
        kept = {*self.model.special_token_ids, *self.model.vision_token_ids}
        prompts, responses, sequences = (batch[name].unbind() for name in ("prompts", "responses", "input_ids"))
        shuffled = []
        for prompt, response, sequence in zip(prompts, responses, sequences, strict=True):
            (generator,) = generators(self.seed, step, 1, *self._identity(prompt, response))
            words = shuffle_text(sequence[: len(prompt)], kept, generator)
            shuffled.append(torch.cat([words, sequence[len(prompt) :]]))
        batch["input_ids"] = nested_tensor_from_jagged(torch.cat(shuffled), batch["input_ids"].offsets())
        return batch

    def _identity(self, prompt: Tensor, response: Tensor) -> tuple[Tensor, ...]:
        """What decides a draw, beside seed and step."""
        return (prompt,) if self.spec.scope == "prompt" else (prompt, response)

    def _ablate(self, inputs: Inputs, step: int, progress: float, *identity: Tensor) -> Inputs:
        if not has_image(inputs):
            return inputs
        pixels, grid = inputs["pixel_values"], inputs["image_grid_thw"]
        ablated = ablate_pixels(
            self.spec,
            pixels,
            grid,
            patch_format=self.model.patch_format,
            generators=generators(self.seed, step, grid.shape[0], *identity, grid, sample_rows(pixels)),
            progress=progress,
        )
        return {**inputs, "pixel_values": ablated}


def unpack(batch: TensorDict) -> PackedSequences:
    """The sequences of a micro-batch without padding, position ids as (R, N)."""
    maybe_fix_3d_position_ids(batch)
    input_ids, position_ids = batch["input_ids"], batch["position_ids"]
    values = position_ids.values()
    return PackedSequences(input_ids.values(), values if values.ndim == 2 else values[None], input_ids.offsets())
