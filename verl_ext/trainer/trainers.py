# SPDX-License-Identifier: Apache-2.0
"""The perception trainers, registered with verl under `perception_<mode>`. Importing this module registers them."""

from __future__ import annotations

from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ext.supervision.watched_trainer import WatchedRun
from verl_ext.trainer.groups_together import GroupsTogether
from verl_ext.trainer.perception_trainer import PerceptionTrainerMixin
from verl_ext.trainer.signal_passes import SignalPasses
from verl_ext.worker.actor_worker import PerceptionWorkerMixin


@register_trainer("perception_sync")
class PerceptionTrainerSync(WatchedRun, PerceptionTrainerMixin, GroupsTogether, PPOTrainerSync, SignalPasses):
    """verl's `sync` trainer with perception methods."""

    base_mode = "sync"


@register_trainer("perception_colocate_async")
class PerceptionTrainerColocateAsync(
    WatchedRun, PerceptionTrainerMixin, GroupsTogether, PPOTrainerColocateAsync, SignalPasses
):
    """verl's `colocate_async` trainer with perception methods."""

    base_mode = "colocate_async"


@register_trainer("perception_separate_async")
class PerceptionTrainerSeparateAsync(
    WatchedRun, PerceptionTrainerMixin, GroupsTogether, PPOTrainerSeparateAsync, SignalPasses
):
    """verl's `separate_async` trainer with perception methods."""

    base_mode = "separate_async"

    def _worker_cls(self) -> type[PerceptionWorkerMixin]:
        # verl keeps it among its experiments; only this trainer needs it.
        from verl_ext.worker.detached_worker import PerceptionDetachActorWorker

        return PerceptionDetachActorWorker
