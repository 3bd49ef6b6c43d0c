# SPDX-License-Identifier: Apache-2.0
"""verl's and this package's sync trainers, writing down what lies in TransferQueue when the update begins.

Loaded through verl's own `VERL_USE_EXTERNAL_MODULES`; chosen by `trainer.v1.trainer_mode`.
"""

import json
from pathlib import Path

import torch
import transfer_queue as tq

# verl loads its external modules before its plug-ins, and the trainers need the platform that the plug-in registers.
import verl_ext.plugin  # noqa: F401  isort: skip
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ext.trainer.trainers import PerceptionTrainerSeparateAsync, PerceptionTrainerSync


def size(value):
    """Bytes of tensors, however nested."""
    if isinstance(value, torch.Tensor):
        return (value.values() if value.is_nested else value).nbytes
    if isinstance(value, dict):
        return sum(map(size, value.values()))
    return sum(map(size, value)) if isinstance(value, list | tuple) else 0


def plain(value):
    """A non-tensor field as a list of what it holds."""
    return value if isinstance(value, torch.Tensor) else value.tolist()


def views(fields):
    """The largest difference of the two views' log-probs of sampled tokens, in rows with and without an image.

    Relative, but absolute below 1; None if there are no such rows.
    """
    names = ("old_log_probs", "ablated_log_prob", "response_mask")
    clean, ablated, mask = (fields[name].to_padded_tensor(0) for name in names)
    difference = ((clean - ablated).abs() / clean.abs().clamp(min=1) * mask).amax(dim=-1)
    image = fields["has_image"]
    groups = {"with_image": difference[image], "without_image": difference[~image]}
    return {name: values.max().item() if len(values) else None for name, values in groups.items()}


class Measuring:
    """Mixin: bytes per field of the batch, in `transfer_queue.jsonl` beside the checkpoints.

    What the trainer hands to the worker's methods is written to `calls.jsonl`.
    """

    def on_init_end(self):
        super().on_init_end()
        for name in ("compute_ablated_log_prob", "compute_ref_log_prob", "update_actor"):
            if hasattr(self.actor_rollout_wg, name):
                setattr(self.actor_rollout_wg, name, self._recorded(name, getattr(self.actor_rollout_wg, name)))

    def _recorded(self, name, method):
        def call(batch):
            what = {"step": self.global_steps, "method": name, "fields": batch.fields}
            self._write("calls", {**what, **batch.extra_info})
            return method(batch)

        return call

    def _write(self, name, record):
        folder = Path(self.config.trainer.default_local_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def _update_actor(self, batch, metrics):
        fields = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id)
        sizes = {name: size(plain(value)) for name, value in fields.items()}
        tokens = int(fields["responses"].values().numel())
        self._write("transfer_queue", {"bytes": sizes, "response_tokens": tokens, "rows": len(batch.keys)})
        if "ablated_log_prob" in fields:
            self._write("views", {"step": self.global_steps, "trigger": self.local_trigger_step, **views(fields)})
        return super()._update_actor(batch, metrics)


@register_trainer("measuring_sync")
class MeasuringSync(Measuring, PPOTrainerSync):
    def __init__(self, config):
        config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)


@register_trainer("perception_measuring_sync")
class MeasuringPerceptionSync(Measuring, PerceptionTrainerSync):
    pass


@register_trainer("perception_measuring_separate_async")
class MeasuringPerceptionSeparateAsync(Measuring, PerceptionTrainerSeparateAsync):
    pass
