# SPDX-License-Identifier: Apache-2.0
"""verl's and this package's sync trainers, writing down what lies in TransferQueue in the first step and no other.

Reading the queue takes time, and the first step's is not counted. Loaded through verl's `VERL_USE_EXTERNAL_MODULES`;
chosen by `trainer.v1.trainer_mode`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transfer_queue as tq
from omegaconf import DictConfig

# verl loads its external modules before its plug-ins, and the trainers need the platform that the plug-in registers.
import verl_ext.plugin  # noqa: F401  isort: skip
from support.measuring_trainers import plain, size
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ext.trainer.trainers import PerceptionTrainerSync

Base = PPOTrainer if TYPE_CHECKING else object


class Recording(Base):
    """Mixin: bytes per field of the first step's batch, in `transfer_queue.json` beside the checkpoints."""

    def _update_actor(self, batch: tq.KVBatchMeta, metrics: dict[str, Any]) -> tq.KVBatchMeta:
        if self.global_steps == 1:
            fields = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id)
            sizes = {name: size(plain(value)) for name, value in fields.items()}
            tokens = int(fields["responses"].values().numel())
            folder = Path(self.config.trainer.default_local_dir)
            record = {"bytes": sizes, "response_tokens": tokens, "rows": len(batch.keys)}
            (folder / "transfer_queue.json").write_text(json.dumps(record))
        return super()._update_actor(batch, metrics)


@register_trainer("recording_sync")
class RecordingSync(Recording, PPOTrainerSync):
    def __init__(self, config: DictConfig) -> None:
        config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)


@register_trainer("perception_recording_sync")
class RecordingPerceptionSync(Recording, PerceptionTrainerSync):
    pass
