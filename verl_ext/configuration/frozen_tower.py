# SPDX-License-Identifier: Apache-2.0
"""Can `actor.freeze_vision_tower` be heeded? Asked before Ray starts."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ext.errors import ConfigurationError

ACTOR = "actor_rollout_ref.actor"
FREEZE = f"{ACTOR}.freeze_vision_tower"
ORIGINAL = f"{ACTOR}.fsdp_config.use_orig_params"
WRAP = f"{ACTOR}.fsdp_config.wrap_policy"
OFFLOAD = "actor_rollout_ref.model.enable_activation_offload"


def check_frozen_tower(config: DictConfig) -> None:
    """Refuse to freeze the tower where the engine could not.

    Args:
        config: verl's.

    Raises:
        ConfigurationError: names what to write instead.
    """
    if not _get(config, FREEZE):
        return
    strategy = _get(config, f"{ACTOR}.strategy")
    if strategy == "megatron":
        _refuse(
            FREEZE,
            True,
            "nothing in verl's Megatron engine freezes the tower; write False, or model_engine=dp with FSDP",
        )
    if _get(config, OFFLOAD):
        _refuse(
            OFFLOAD,
            True,
            f"verl's offloading counts the layers that have a gradient, and with {FREEZE}=True those of "
            "the tower have none; write False",
        )
    if strategy == "fsdp" and not _get(config, ORIGINAL) and not _adapter(config):
        _check_units(config)


def _check_units(config: DictConfig) -> None:
    """FSDP1 flattens what it wraps together, so that the tower must be wrapped apart: by verl's own policy it is."""
    ways = {"disable": False, "min_num_params": 0, "transformer_layer_cls_to_wrap": None}
    for name, own in ways.items():
        value = _get(config, f"{WRAP}.{name}")
        if (value or own) != own:
            remedy = (
                f"it has FSDP1 flatten frozen and trained parameters into one; with {FREEZE}=True write "
                f"{ORIGINAL}=True, {ACTOR}.strategy=fsdp2, or leave it out"
            )
            _refuse(f"{WRAP}.{name}", value, remedy)


def _adapter(config: DictConfig) -> bool:
    """With an adapter (LoRA) all else is frozen, and wrapped accordingly."""
    return bool(_get(config, "actor_rollout_ref.model.lora_rank"))


def _get(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key)


def _refuse(key: str, value: Any, remedy: str) -> None:
    raise ConfigurationError(key=key, value=value, remedy=remedy)
