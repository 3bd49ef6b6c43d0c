# SPDX-License-Identifier: Apache-2.0
"""The perception trainers, registered with verl under `perception_<mode>`. Importing this module registers them."""

from __future__ import annotations

from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ext.integration.trainer_mixin import PerceptionTrainerMixin


@register_trainer("perception_sync")
class PerceptionTrainerSync(PerceptionTrainerMixin, PPOTrainerSync):
    """verl's `sync` trainer with perception methods."""

    base_mode = "sync"


@register_trainer("perception_colocate_async")
class PerceptionTrainerColocateAsync(PerceptionTrainerMixin, PPOTrainerColocateAsync):
    """verl's `colocate_async` trainer with perception methods."""

    base_mode = "colocate_async"
