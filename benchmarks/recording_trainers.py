# SPDX-License-Identifier: Apache-2.0
"""verl's and this package's sync trainers, writing down what lies in TransferQueue in the first step and no other.

Reading the queue takes time, and the first step's is not counted.
"""

from typing import Any

from support.measuring_trainers import Measuring, MeasuringPerceptionSync, MeasuringSync
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer


class _FirstStepOnly(Measuring):
    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self.global_steps == 1:
            return super()._update_actor(batch, metrics)
        return super(Measuring, self)._update_actor(batch, metrics)


@register_trainer("recording_sync")
class RecordingSync(_FirstStepOnly, MeasuringSync):
    pass


@register_trainer("perception_recording_sync")
class RecordingPerceptionSync(_FirstStepOnly, MeasuringPerceptionSync):
    pass
