# SPDX-License-Identifier: Apache-2.0
"""verl's critic on rows of which one carries the pictures of others."""

from __future__ import annotations

from tensordict import TensorDict
from verl.single_controller.base.decorator import make_nd_compute_dataproto_dispatch_fn, register
from verl.workers.engine_workers import TrainingWorker

from verl_ext.passes.row_inputs import row_inputs, set_row_inputs
from verl_ext.passes.row_pictures import with_pixels


class PerceptionCriticWorker(TrainingWorker):
    """verl's worker, given whole pictures."""

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)  # type: ignore[attr-defined]
    def infer_batch(self, data: TensorDict) -> TensorDict | None:
        """Values of the rows."""
        set_row_inputs(data, with_pixels(row_inputs(data)))
        return super().infer_batch(data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)  # type: ignore[attr-defined]
    def train_mini_batch(self, data: TensorDict) -> TensorDict | None:
        """The critic's update."""
        set_row_inputs(data, with_pixels(row_inputs(data)))
        return super().train_mini_batch(data)
