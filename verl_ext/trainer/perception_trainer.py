# SPDX-License-Identifier: Apache-2.0
"""What the perception trainers add to verl's v1 trainers, by overriding hooks and calling `super()`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch
from omegaconf import DictConfig, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role

from verl_ext.configuration.estimators import estimator_of, weights_gae
from verl_ext.configuration.section import Perception, parse
from verl_ext.configuration.validation import validate
from verl_ext.errors import ConfigurationError
from verl_ext.logs import get_logger
from verl_ext.methods.base import RolloutSignals
from verl_ext.methods.credit import without_equal_reward_groups
from verl_ext.models.facts import patch_format
from verl_ext.passes.signals_by_pass import Plan, plan
from verl_ext.records.recorder import Credit, TokenRecorder
from verl_ext.supervision.checkpoints import checkpoint_of
from verl_ext.supervision.collapse import REMEDIES, CollapseWatch
from verl_ext.trainer.estimators import handed_over
from verl_ext.trainer.metrics import masked_metrics, shared_metrics
from verl_ext.trainer.rollout_batch import RolloutBatch
from verl_ext.trainer.signal_passes import SignalPasses
from verl_ext.trainer.step_credit import StepCredit
from verl_ext.vocabulary import STEPS_DONE, TOTAL_STEPS
from verl_ext.worker.actor_worker import PerceptionActorRolloutRefWorker, PerceptionWorkerMixin
from verl_ext.worker.critic_worker import PerceptionCriticWorker

logger = get_logger(__name__)

if TYPE_CHECKING:
    Base = SignalPasses
else:
    Base = object  # verl's trainer comes after the mixin
# verl's task runner, which reads the trainer's configuration after the trainer is built, imports it by this name.
AGENT_LOOP_MANAGER = "verl_ext.rollout.agent_loops.PerceptionAgentLoopManager"
COLLAPSE = "perception_collapse.json"
"""What the watch for a collapse has seen, in a checkpoint."""
ACTOR_ROLES = (Role.Actor, Role.ActorRollout, Role.ActorRolloutRef, Role.RefPolicy)


class PerceptionTrainerMixin(Base):
    """Put before one of verl's v1 trainers, with :class:`SignalPasses` behind it.

    Attributes:
        base_mode: the name under which verl knows that trainer.
    """

    base_mode: str

    def __init__(self, config: DictConfig) -> None:
        if "perception" not in config:
            mode = config.trainer.v1.trainer_mode
            raise ConfigurationError(
                key="trainer.v1.trainer_mode", value=mode, remedy=f"add +perception=<method>, or write {self.base_mode}"
            )
        validate(config)
        self.perception: Perception = parse(config.perception)
        self.plan: Plan = plan(self.perception.signals)
        self._warned_without_images = False
        window = self.perception.options.collapse_window
        self._collapse = CollapseWatch(window) if window else None
        with open_dict(config):
            # verl's trainers read their own section by this name.
            config.trainer.v1.trainer_mode = self.base_mode
            config.algorithm.adv_estimator = estimator_of(config, self.perception.methods)
            if weights_gae(config):
                config.critic.enable = True
            config.actor_rollout_ref.perception = config.perception
            # Not in the group's YAML, which would take the place of a manager that a run's own YAML names.
            loops = config.actor_rollout_ref.rollout.agent
            loops.agent_loop_manager_class = loops.get("agent_loop_manager_class") or AGENT_LOOP_MANAGER
        super().__init__(config)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in ACTOR_ROLES:
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(self._worker_cls())
        if Role.Critic in self.role_worker_mapping:
            self.role_worker_mapping[Role.Critic] = ray.remote(PerceptionCriticWorker)  # type: ignore[assignment]

    def _worker_cls(self) -> type[PerceptionWorkerMixin]:
        return PerceptionActorRolloutRefWorker

    @cached_property
    def _recorder(self) -> TokenRecorder | None:
        options = self.perception.options
        if not options.record_every:
            return None
        form = patch_format(self.processor) if self.processor is not None else None
        folder = Path(self.config.trainer.default_local_dir)
        return TokenRecorder(folder, options.record_every, options.record_rows, self.tokenizer, form)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        rollout = RolloutBatch.fetch(batch, *StepCredit.fields(self.perception))
        credit = StepCredit(rollout, self.perception, self._progress(), self.global_steps)
        with handed_over(credit):
            batch = super()._compute_advantage(batch, metrics=metrics)
        if credit.signals is None:
            raise RuntimeError(f"verl has not called algorithm.adv_estimator={self.config.algorithm.adv_estimator}")
        self._warn_without_images(credit.signals)
        metrics.update(credit.metrics())
        credit.put_right()
        batch, advantages = self._left_out(batch, credit, credit.signals)
        if self._recorder is not None and not self.local_trigger_step:
            shown = Credit(credit.signals, credit.real_weights, advantages)
            self._recorder.record(rollout.real_keys, batch.partition_id, shown, self.global_steps)
        return batch

    def _left_out(
        self, batch: KVBatchMeta, credit: StepCredit, signals: RolloutSignals
    ) -> tuple[KVBatchMeta, torch.Tensor]:
        """The batch, and the (B', T) advantages of its real rows, without those that are to train nothing."""
        equal = self.perception.options.zero_equal_reward_groups
        rollout = RolloutBatch.fetch(batch, "advantages", *(["rm_scores"] if equal else []))
        given = advantages = rollout.padded("advantages")
        if equal:
            rewards = rollout.padded("rm_scores").sum(dim=-1)
            advantages = without_equal_reward_groups(advantages, rewards, signals.group_ids)
        if credit.broken.rows.any():
            advantages = advantages.masked_fill(credit.broken.rows[:, None], 0.0)
        return batch if advantages is given else rollout.write("advantages", advantages), advantages

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch.extra_info.update({STEPS_DONE: self.global_steps - 1, TOTAL_STEPS: self.total_training_steps})
        batch = super()._update_actor(batch, metrics=metrics)
        metrics.update(shared_metrics(metrics))
        return batch

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float], global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        metrics.update(masked_metrics(RolloutBatch.fetch(batch, "uid", "extra_fields").real_values("extra_fields")))
        if self._collapse is not None:
            logged, warning = self._collapse.update(metrics, global_steps)
            metrics.update(logged)
            if warning:
                logger.warning("%s. %s", warning, REMEDIES)
            self._save_collapse(self._collapse, global_steps)

    def _save_collapse(self, watch: CollapseWatch, step: int) -> None:
        """Into the checkpoint of the step, if there is one, so that a resumed run goes on with the same window."""
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{step}"
        try:
            if folder.is_dir():
                watch.save(folder / COLLAPSE)
        except OSError as error:
            logger.warning("step %d: %s; a run resumed from here watches for a collapse anew", step, error)

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        resumed = checkpoint_of(self.config)
        if self._collapse is not None and resumed and (resumed / COLLAPSE).is_file():
            self._collapse.load(resumed / COLLAPSE)

    def _warn_without_images(self, signals: RolloutSignals) -> None:
        if self._warned_without_images or not self.perception.signals or torch.any(signals.has_image):
            return
        self._warned_without_images = True
        logger.warning(
            "step %d: no row of the batch has an image, so %s leaves it as verl's %s would; is data.image_key=%s the "
            "column that holds the images?",
            self.global_steps,
            ", ".join(method.name for method in self.perception.methods),
            self.perception.options.base_estimator,
            self.config.data.get("image_key", "images"),
        )
