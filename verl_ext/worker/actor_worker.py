# SPDX-License-Identifier: Apache-2.0
"""What is added to verl's actor workers: signals in the log-prob pass, and a role method for image-ablated views."""

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
from verl.workers.utils.padding import response_from_nested

from verl_ext.configuration.section import Perception, parse
from verl_ext.methods.base import Method
from verl_ext.models.facts import model_facts
from verl_ext.passes.ablated_batch import Ablation
from verl_ext.passes.ablated_view import AblatedView
from verl_ext.passes.engine_passes import passes_of
from verl_ext.passes.signals_by_pass import log_prob_fields, plan
from verl_ext.vocabulary import HAS_IMAGE, PROGRESS, STEP
from verl_ext.worker.admission import admit_model
from verl_ext.worker.flops import mend_flops_counter
from verl_ext.worker.image_tokens import check_image_tokens, count_vision_tokens
from verl_ext.worker.loss import loss_with_terms
from verl_ext.worker.position_ids import repair_position_ids
from verl_ext.worker.step_pictures import StepPictures
from verl_ext.worker.tower_passes import TowerPassesMixin


class PerceptionWorkerMixin(TowerPassesMixin):
    """Put before one of verl's actor workers.

    Reads its configuration from `actor_rollout_ref.perception`, where the trainer puts it.
    """

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[attr-defined]
    def init_model(self) -> None:
        """Build verl's models, then wrap the actor's loss and learn what ablations need to know of the model.

        Raises:
            ConfigurationError: the model is not one that methods run on.
        """
        perception: Perception = parse(self.config.perception)
        self.family = admit_model(self.config, perception)
        super().init_model()
        self._pictures = StepPictures()
        self.plan = plan(perception.signals)
        for worker in filter(None, (self.actor, self.ref)):
            engine: Any = worker.engine
            mend_flops_counter(worker, engine.model_config.hf_config)
            options = perception.options
            passes_of(engine).prepare(engine, options.response_only_logits, self.plan, options.share_prompts)
        if self.actor is None:
            return
        self.model_facts = model_facts(self.actor.model_config)
        self.ablations = {
            name: Ablation(spec, self.model_facts, perception.options.seed) for name, spec in perception.views.items()
        }
        self.loss_fn = partial(
            loss_with_terms,
            base_loss=self.loss_fn,
            config=self.loss_fn.keywords["config"],
            methods=[method for method in perception.methods if type(method).loss_terms is not Method.loss_terms],
            on_broken=perception.options.on_broken,
            fade_over=perception.options.fade_over,
        )
        self.actor.set_loss_fn(self.loss_fn)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_log_prob(self, data: TensorDict) -> TensorDict | None:
        """verl's clean pass, after checking that image tokens and image features agree.

        With `perception_step` (int) the signals that belong to this pass are measured in it, and `has_image` (B,) bool
        is added, unless the adapter is off (the reference of a LoRA actor). In this pass and the others the images are
        those of :class:`verl_ext.worker.step_pictures.StepPictures`.

        Raises:
            DataError: they do not; names the row.
        """
        self._complete(data)
        check_image_tokens(data, self.model_facts)
        if tu.get(data, STEP) is None or tu.get(data, "no_lora_adapter", default=False):
            return super().compute_log_prob(data)
        assert self.actor is not None
        engine: Any = self.actor.engine
        vision_token_ids = self.model_facts.vision_token_ids
        with passes_of(engine).measuring(engine, self.plan, self._views(data), vision_token_ids):
            output = super().compute_log_prob(data)
        if output is not None:
            output[HAS_IMAGE] = torch.tensor(count_vision_tokens(data["prompts"], self.model_facts)) > 0
        return output

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="ref"))
    def compute_ref_log_prob(self, data: TensorDict) -> TensorDict | None:
        """verl's reference pass."""
        self._complete(data)
        return super().compute_ref_log_prob(data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_actor(self, data: TensorDict) -> TensorDict | None:
        """verl's update."""
        self._complete(data)
        return super().update_actor(data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    @DistProfiler.annotate(color="purple", role="actor_compute_ablated_log_prob")
    def compute_ablated_log_prob(self, data: TensorDict) -> TensorDict | None:
        """Log-probabilities of the same response tokens with the image taken away.

        Args:
            data: the fields of `compute_log_prob`, `perception_step` (int) and `perception_progress` (float).

        Returns:
            One (B, j) jagged fp32 field a view, over the responses; None on ranks whose outputs verl does not collect.
        """
        self._complete(data)
        views = self._views(data)
        outputs = {
            field: self._ablated_log_prob(views[view], data)
            for view, field in log_prob_fields(self.plan.separate).items()
        }
        fields = {field: values for field, values in outputs.items() if values is not None}
        return TensorDict(fields, batch_size=data.batch_size) if fields else None

    def _ablated_log_prob(self, view: AblatedView, data: TensorDict) -> Tensor | None:
        assert self.actor is not None
        engine: Any = self.actor.engine
        with passes_of(engine).running(engine, view):
            output: Any = self.actor.infer_batch(data)
        return None if output is None else response_from_nested(output["log_probs"], data["response_mask"]).float()

    def _views(self, data: TensorDict) -> dict[str, AblatedView]:
        step: int = tu.get(data, STEP)
        progress: float = tu.get(data, PROGRESS, default=0.0)
        return {name: AblatedView(ablation, step, progress) for name, ablation in self.ablations.items()}

    def _complete(self, data: TensorDict) -> None:
        """Make a batch what verl's passes expect."""
        self._pictures.restore(data)
        repair_position_ids(data)


class PerceptionActorRolloutRefWorker(PerceptionWorkerMixin, ActorRolloutRefWorker):
    """verl's worker for actor, reference and a rollout on the same devices."""
