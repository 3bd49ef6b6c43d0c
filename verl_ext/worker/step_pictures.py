# SPDX-License-Identifier: Apache-2.0
"""The pictures of a step on a worker: whole in every row, and kept from pass to pass."""

from __future__ import annotations

from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu

from verl_ext.passes.row_inputs import Inputs, row_inputs, set_row_inputs
from verl_ext.passes.row_pictures import with_pixels
from verl_ext.vocabulary import KEEP_IMAGES


class StepPictures:
    """`multi_modal_inputs` of the rows of a step, where the trainer has the worker keep them."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, list[Inputs]] | None = None

    def restore(self, data: TensorDict) -> None:
        """Give each row of a pass its pictures: those that came with it, or else those that were kept.

        With `perception_keep_images` true, further passes over the same rows, in the same order, may come without; with
        false the pictures are let go of; a pass without it changes nothing of that.

        Args:
            data: `input_ids` (B, j) jagged, and `multi_modal_inputs` or not.

        Raises:
            RuntimeError: the batch has no pictures, and those of other rows or none were kept.
        """
        came = "multi_modal_inputs" in data
        rows = with_pixels(row_inputs(data)) if came else self._kept_rows(data["input_ids"].values())
        set_row_inputs(data, rows)
        keep = tu.get(data, KEEP_IMAGES)
        if keep is not None:
            self._kept = (data["input_ids"].values(), rows) if keep else None

    def _kept_rows(self, input_ids: Tensor) -> list[Inputs]:
        if self._kept is None:
            raise RuntimeError("a batch came without multi_modal_inputs, and no pass before it kept them")
        before, rows = self._kept
        if not before.equal(input_ids):
            raise RuntimeError("a batch without multi_modal_inputs has other rows than the pass that kept them")
        return rows
