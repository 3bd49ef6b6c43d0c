# SPDX-License-Identifier: Apache-2.0
"""The passes that measure signals, at the one moment when the actor has the weights of the old log-probabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transfer_queue import KVBatchMeta
from verl.utils.debug import marked_timer

from verl_ext.configuration.section import Perception
from verl_ext.passes.ablated_view import INPUT_FIELDS
from verl_ext.passes.signals_by_pass import Plan
from verl_ext.supervision.rollout_agreement import log_prob_correlation, require_agreement
from verl_ext.trainer.kept_pictures import KeptPictures
from verl_ext.trainer.rollout_batch import RolloutBatch
from verl_ext.vocabulary import PROGRESS, STEP


class SignalPasses(KeptPictures):
    """Stands behind verl's trainers in the order of inheritance, where they call `super()` for the old log-probs.

    The trainer with separate rollouts puts earlier weights in place around that call, so that all mini-batches between
    two weight syncs have the same old policy; what is measured inside has that policy too.
    """

    perception: Perception
    plan: Plan

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self.perception.signals:
            batch.extra_info.update(self._moment())
        batch = super()._compute_old_log_prob(batch, metrics=metrics)
        self._check_rollout(batch, metrics)
        if self.plan.separate:
            self._measure_ablated_log_prob(batch)
        return batch

    def _measure_ablated_log_prob(self, batch: KVBatchMeta) -> None:
        """Run the ablated pass with the clean pass's settings; the worker writes its result to TransferQueue."""
        settings = {
            "calculate_entropy": False,
            "compute_loss": False,
            "temperature": self.config.actor_rollout_ref.rollout.temperature,
            **self._moment(),
        }
        # The images are those that the clean pass has kept.
        text = replace(batch, fields=list(INPUT_FIELDS), extra_info={**batch.extra_info, **settings})
        before = self.timing_raw.get("ablated_log_prob", 0.0)
        with marked_timer("ablated_log_prob", self.timing_raw, color="purple"):
            self.actor_rollout_wg.compute_ablated_log_prob(text)
        # verl's timer of the clean pass encloses this hook; keep the two apart.
        elapsed = self.timing_raw["ablated_log_prob"] - before
        self.timing_raw["old_log_prob"] = self.timing_raw.get("old_log_prob", 0.0) - elapsed

    def _check_rollout(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> None:
        if not self.config.actor_rollout_ref.rollout.calculate_log_probs:
            return
        rollout = RolloutBatch.fetch(batch, "response_mask", "rollout_log_probs", "old_log_probs")
        correlation = log_prob_correlation(
            rollout.padded("rollout_log_probs"), rollout.padded("old_log_probs"), rollout.padded("response_mask")
        )
        metrics["perception/rollout_actor_log_prob_corr"] = correlation
        require_agreement(correlation, self.perception.options.min_rollout_correlation, self.global_steps)

    def _moment(self) -> dict[str, Any]:
        """What the workers must know of the present step to measure signals."""
        return {STEP: self.global_steps, PROGRESS: self._progress()}

    def _progress(self) -> float:
        """Share of the training steps that are done."""
        return min(1.0, (self.global_steps - 1) / max(1, self.total_training_steps))
