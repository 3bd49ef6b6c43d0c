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

from verl_ext.errors import ConfigurationError
from verl_ext.integration.advantage import combined, method_weights, without_equal_reward_groups
from verl_ext.integration.batch import RolloutBatch
from verl_ext.integration.broken import BrokenRows
from verl_ext.integration.checkpoints import checkpoint_of
from verl_ext.integration.collapse import REMEDIES, CollapseWatch
from verl_ext.integration.config import Perception, parse
from verl_ext.integration.control import faded, influence, shuffled
from verl_ext.integration.loss import HAS_IMAGE, STEPS_DONE, TOTAL_STEPS
from verl_ext.integration.metrics import masked_metrics, method_metrics, signal_metrics, weight_metrics
from verl_ext.integration.model_facts import patch_format
from verl_ext.integration.plan import Plan, plan
from verl_ext.integration.recorder import Credit, TokenRecorder
from verl_ext.integration.signal_passes import SignalPasses
from verl_ext.integration.validation import validate
from verl_ext.integration.worker import PerceptionActorRolloutRefWorker, PerceptionWorkerMixin
from verl_ext.logs import get_logger
from verl_ext.methods.base import RolloutSignals

logger = get_logger(__name__)

if TYPE_CHECKING:
    Base = SignalPasses
else:
    Base = object  # verl's trainer comes after the mixin
# verl's task runner, which reads the trainer's configuration after the trainer is built, imports it by this name.
AGENT_LOOP_MANAGER = "verl_ext.integration.agent_loops.PerceptionAgentLoopManager"
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
        batch = super()._compute_advantage(batch, metrics=metrics)
        rollout = RolloutBatch.fetch(batch, *self._advantage_fields())
        signals = rollout.signals(self.perception.signals, self._progress())
        self._warn_without_images(signals)
        broken = BrokenRows(self.perception.options.on_broken, self.global_steps, rollout.real_uids)
        signals = broken.without(signals, self.perception.methods)
        if self.perception.signals:
            metrics.update(signal_metrics(signals))
        by_method = broken.finite(method_weights(self.perception.methods, signals), signals.response_mask)
        weights = self._combined(by_method, signals)
        advantages = self._weighted(rollout, signals, weights)
        if broken.rows.any():
            metrics["perception/broken_rows"] = float(broken.rows.sum())
            advantages = self._leave_out(rollout, signals, broken.rows, advantages)
        if self._recorder is not None and not self.local_trigger_step:
            final = rollout.padded("advantages") if advantages is None else advantages
            self._recorder.record(rollout, Credit(signals, weights, final), self.global_steps)
        if advantages is None:
            return batch
        if weights is not None:
            metrics.update(weight_metrics(weights, signals.response_mask))
            metrics.update(method_metrics(by_method, signals.response_mask))
        return rollout.write("advantages", advantages)

    def _combined(self, by_method: dict[str, torch.Tensor], signals: RolloutSignals) -> torch.Tensor | None:
        """(B, T) product of the methods' weights, shuffled and faded as the options want it; None if there are none."""
        options, weights = self.perception.options, combined(by_method)
        if weights is None:
            return None
        if options.shuffle_weights:
            weights = shuffled(weights, signals, options.seed, self.global_steps)
        return faded(weights, signals.response_mask, influence(self._progress(), options.fade_over))

    def _weighted(
        self, rollout: RolloutBatch, signals: RolloutSignals, weights: torch.Tensor | None
    ) -> torch.Tensor | None:
        """(B, T) advantages as the methods and options want them; None if they want verl's own."""
        equal = self.perception.options.zero_equal_reward_groups
        if weights is None and not equal:
            return None
        advantages = rollout.padded("advantages")
        if equal:
            rewards = rollout.padded("rm_scores").sum(dim=-1)
            advantages = without_equal_reward_groups(advantages, rewards, signals.group_ids)
        return advantages if weights is None else advantages * weights

    def _leave_out(
        self, rollout: RolloutBatch, signals: RolloutSignals, rows: torch.Tensor, advantages: torch.Tensor | None
    ) -> torch.Tensor:
        """Advantages of 0 for `rows`; what the loss reads of them in TransferQueue becomes harmless."""
        rollout.write("old_log_probs", signals.old_log_prob)
        for signal, values in signals.measured.items():
            rollout.write(signal.field, values)
        if self.perception.signals:
            rollout.write_rows(HAS_IMAGE, signals.has_image)
        given = rollout.padded("advantages") if advantages is None else advantages
        return given.masked_fill(rows[:, None], 0.0)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch.extra_info.update({STEPS_DONE: self.global_steps - 1, TOTAL_STEPS: self.total_training_steps})
        return super()._update_actor(batch, metrics=metrics)

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

    def _advantage_fields(self) -> list[str]:
        fields = ["uid", "response_mask", "old_log_probs", "advantages"]
        if self.perception.options.zero_equal_reward_groups:
            fields.append("rm_scores")
        if self.perception.signals:
            fields += [HAS_IMAGE, *(signal.field for signal in self.perception.signals)]
        return fields

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
