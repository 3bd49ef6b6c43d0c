# SPDX-License-Identifier: Apache-2.0
"""Does the model fit the methods, and the configuration the model? Checked before Ray starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ext.models import admission
from verl_ext.models.model_files import model_files

DEVICE = "trainer.device"
RANK = "actor_rollout_ref.model.lora_rank"
FLASH_ATTENTION = "flash_attention_2"
"""verl's choice where the configuration makes none."""
SEQUENCE_PARALLEL_KEYS = (
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
    "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size",
)


def check_model(config: DictConfig, unverified: bool, kinds: Iterable[str]) -> None:
    """Check the model of a composed verl configuration; nothing for one that is not on this machine.

    Args:
        config: verl's.
        unverified: `perception.unverified_model`.
        kinds: of the ablations.

    Raises:
        ConfigurationError: its type is not supported, or its engine, padding, patch size, adapter or sequence
            parallelism do not fit it.
    """
    model = model_files(str(_get(config, admission.PATH)))
    if model is None:
        return
    family = admission.admit(model, str(_get(config, admission.STRATEGY)), unverified)
    admission.check_positions(family, kinds)
    admission.check_packing(family, bool(_get(config, admission.PADDING)))
    admission.check_patch_size(family, model, _get(config, admission.PATCH_SIZE))
    admission.check_adapter(family, int(_get(config, RANK) or 0), _get(config, admission.ADAPTER))
    # The CPU platform joins parts in transformers' own attention.
    joined = FLASH_ATTENTION if _get(config, DEVICE) == "cpu" else _get(config, admission.ATTENTION) or FLASH_ATTENTION
    for key in SEQUENCE_PARALLEL_KEYS:
        admission.check_split_sequences(family, int(_get(config, key) or 1), key, str(joined))


def _get(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key)
