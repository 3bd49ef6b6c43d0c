# SPDX-License-Identifier: Apache-2.0
"""`actor.freeze_vision_tower`, which verl's v1 engines do not read: the actor's tower is frozen while it is built."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import TrainingWorker

from verl_ext.models.family import Family
from verl_ext.models.frozen_tower import excluding_tower, freeze_vision_tower


class FrozenTowerWorker(TrainingWorker):
    """verl's training worker whose engine freezes the vision tower before FSDP shards the model."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[attr-defined]
    def reset(self) -> None:
        """Build the model, with a frozen tower, and the optimizer."""
        engine: Any = self.engine
        engine._build_fsdp_module = _after_freezing(engine)
        super().reset()


def freezes_tower(config: DictConfig) -> bool:
    """Whether the actor's tower is to be frozen.

    Args:
        config: `actor_rollout_ref` of verl's configuration.
    """
    return bool(config.actor.get("freeze_vision_tower", False))


def leave_tower_without_adapter(config: DictConfig, family: Family) -> None:
    """Have peft put no adapter (LoRA) on the tower.

    Args:
        config: `actor_rollout_ref` of verl's configuration, changed in place.
        family: the model's.
    """
    if config.model.get("lora_rank", 0) > 0:
        with open_dict(config.model):
            config.model.exclude_modules = excluding_tower(config.model.get("exclude_modules"), family.tower.name)


def _after_freezing(engine: Any) -> Any:
    shard, settings = engine._build_fsdp_module, engine.engine_config
    flattens = settings.strategy == "fsdp" and not settings.use_orig_params

    def build(module: torch.nn.Module) -> torch.nn.Module:
        freeze_vision_tower(module, as_one_unit=flattens)
        return shard(module)

    return build
