# SPDX-License-Identifier: Apache-2.0
"""The pictures of a step cross the network once: the workers keep what the clean pass has fetched for the others."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from verl_ext.vocabulary import KEEP_IMAGES


class KeptPictures(PPOTrainer):
    """Stands behind verl's trainers in the order of inheritance, where they call `super()` for the passes of a step."""

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch.extra_info[KEEP_IMAGES] = True
        return super()._compute_old_log_prob(batch, metrics=metrics)

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch.extra_info.pop(KEEP_IMAGES, None)
        fetched = self._without_pictures(batch) if self._reference_has_the_actors_rows else batch
        super()._compute_ref_log_prob(fetched, metrics=metrics)
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch.extra_info[KEEP_IMAGES] = False
        return super()._update_actor(self._without_pictures(batch), metrics=metrics)

    def _without_pictures(self, batch: KVBatchMeta) -> KVBatchMeta:
        """The batch for a pass that is to use the pictures that its workers have; itself if there was no clean pass."""
        if batch.fields is None or OmegaConf.select(self.config, "algorithm.rollout_correction.bypass_mode"):
            return batch
        return replace(batch, fields=[name for name in batch.fields if name != "multi_modal_inputs"])

    @cached_property
    def _reference_has_the_actors_rows(self) -> bool:
        """Whether the reference runs in the actor's workers, each on the rows that it has as actor."""
        workers = self.actor_rollout_wg
        if self.ref_in_actor or self.ref_policy_wg is not workers:
            return bool(self.ref_in_actor)
        return bool(workers._query_dispatch_info("ref") == workers._query_dispatch_info("actor"))
