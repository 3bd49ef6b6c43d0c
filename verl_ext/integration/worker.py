# SPDX-License-Identifier: Apache-2.0
"""verl's actor worker with one more role method: the log-probabilities of the image-ablated view."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.utils.profiler import DistProfiler
from verl.workers.engine_workers import ActorRolloutRefWorker

from verl_ext.integration.ablated_batch import Ablation, Inputs, row_inputs, set_row_inputs
from verl_ext.integration.ablated_pass import ablated_forward, signal_fields
from verl_ext.integration.config import Perception, parse
from verl_ext.integration.image_tokens import check_image_tokens
from verl_ext.integration.loss import perception_loss
from verl_ext.integration.model_facts import model_facts
from verl_ext.integration.position_ids import repair_position_ids
from verl_ext.integration.vision_tower import allow_image_free_batches
from verl_ext.methods.base import Method

STEP = "perception_step"
KEEP_IMAGES = "perception_keep_images"


class PerceptionActorRolloutRefWorker(ActorRolloutRefWorker):
    """Reads its configuration from `actor_rollout_ref.perception`, where the trainer puts it."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[attr-defined]
    def init_model(self) -> None:
        """Build verl's models, then wrap the actor's loss and learn what ablations need to know of the model."""
        super().init_model()
        for worker in (self.actor, self.ref):
            if worker is not None:
                allow_image_free_batches(worker.engine.module)  # type: ignore[attr-defined]
        if self.actor is None:
            return
        perception: Perception = parse(self.config.perception)
        self.model_facts = model_facts(self.actor.model_config)
        self.ablation = Ablation(perception.ablation, self.model_facts, perception.options.seed)
        self.loss_fn = partial(
            perception_loss,
            base_loss=self.loss_fn,
            config=self.loss_fn.keywords["config"],
            methods=[method for method in perception.methods if type(method).loss_terms is not Method.loss_terms],
        )
        self._clean_images: tuple[Tensor, list[Inputs]] | None = None
        self.actor.set_loss_fn(self.loss_fn)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_log_prob(self, data: TensorDict) -> TensorDict | None:
        """verl's clean pass, after checking that image tokens and image features agree.

        With `perception_keep_images` the image features are kept for the ablated pass over the same batch.

        Raises:
            DataError: they do not; names the row.
        """
        repair_position_ids(data)
        check_image_tokens(data, self.model_facts)
        if tu.get(data, KEEP_IMAGES, default=False):
            self._clean_images = (data["input_ids"].values(), row_inputs(data))
        return super().compute_log_prob(data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="ref"))
    def compute_ref_log_prob(self, data: TensorDict) -> TensorDict | None:
        """verl's reference pass."""
        repair_position_ids(data)
        return super().compute_ref_log_prob(data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_actor(self, data: TensorDict) -> TensorDict | None:
        """verl's update."""
        repair_position_ids(data)
        return super().update_actor(data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    @DistProfiler.annotate(color="purple", role="actor_compute_ablated_log_prob")
    def compute_ablated_log_prob(self, data: TensorDict) -> TensorDict | None:
        """Log-probabilities of the same response tokens with the image taken away.

        Args:
            data: the fields of `compute_log_prob`, and `perception_step` (int). Without `multi_modal_inputs` the
                images are those that the clean pass kept, row by row; `drop_vision` needs none.

        Returns:
            See `signal_fields`; None on ranks whose outputs verl does not collect.
        """
        assert self.actor is not None
        self._restore_images(data)
        repair_position_ids(data)
        step: int = tu.get(data, STEP)
        with ablated_forward(self.actor.engine, self.ablation, step):
            output: Any = self.actor.infer_batch(data)
        return None if output is None else signal_fields(data, output["log_probs"], self.model_facts)

    def _restore_images(self, data: TensorDict) -> None:
        """Put the images that the clean pass kept back into the batch, and let go of them."""
        kept, self._clean_images = self._clean_images, None
        if kept is None:
            return
        input_ids, rows = kept
        if not torch.equal(input_ids, data["input_ids"].values()):
            raise RuntimeError("the ablated pass got other rows than the clean pass before it")
        set_row_inputs(data, rows)
