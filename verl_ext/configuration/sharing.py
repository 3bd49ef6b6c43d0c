# SPDX-License-Identifier: Apache-2.0
"""Can prompts be shared where the configuration insists on it?"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ext.attention.implementations import IMPLEMENTATIONS
from verl_ext.configuration.model import (
    FLASH_ATTENTION,
    REFERENCE_KEYS,
    SEQUENCE_PARALLEL_KEYS,
    STRATEGIES,
    family_of_configured,
)
from verl_ext.configuration.section import Perception
from verl_ext.errors import ConfigurationError
from verl_ext.models.fitness import ATTENTION, FUSED_KERNELS

KEY = "perception.share_prompts"


def check_sharing(config: DictConfig, perception: Perception) -> None:
    """Look for what keeps prompts from being shared; what the model alone decides is looked for where it is known.

    Raises:
        ConfigurationError: `perception.share_prompts` is True, and something does.
    """
    obstacle = obstacle_to_sharing(config, perception) if perception.options.share_prompts else None
    if obstacle is not None:
        raise ConfigurationError(key=KEY, value=True, remedy=f"{obstacle}; write null, or change that")


def shares_prompts(config: DictConfig, perception: Perception) -> bool:
    """Whether the actor will share prompts, as far as the configuration and a model that is there already tell."""
    if perception.options.share_prompts is False or obstacle_to_sharing(config, perception) is not None:
        return False
    family = family_of_configured(config, perception)
    return family is None or family.shares_prompts


def obstacle_to_sharing(config: DictConfig, perception: Perception) -> str | None:
    """What keeps every model's prompts from being shared, with key and value; None if nothing does."""
    fused = _get(config, FUSED_KERNELS)
    reasons = {
        FUSED_KERNELS: fused and "fused kernels compute no logits of chosen tokens",
        "perception.response_only_logits": perception.options.response_only_logits is False
        and "a prompt's last state must give the first token of each response",
        ATTENTION: (_get(config, ATTENTION) or FLASH_ATTENTION) not in IMPLEMENTATIONS
        and f"only {', '.join(IMPLEMENTATIONS)} let responses branch off behind a prompt",
        **{key: _get(config, key) == "megatron" and "Megatron's actor computes every row apart" for key in STRATEGIES},
        **{
            key: int(_get(config, key) or 1) > 1 and "responses that share a prompt are not cut over ranks"
            for key in (*SEQUENCE_PARALLEL_KEYS, *REFERENCE_KEYS)
        },
    }
    found = ((key, reason) for key, reason in reasons.items() if reason)
    return next((f"{reason} ({key}={_get(config, key)})" for key, reason in found), None)


def _get(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key)
