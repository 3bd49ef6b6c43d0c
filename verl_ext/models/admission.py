# SPDX-License-Identifier: Apache-2.0
"""Is a model one that perception methods were verified on? Asked before Ray starts, and again in the worker."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from verl_ext.errors import ConfigurationError
from verl_ext.logs import get_logger
from verl_ext.models.available import available_families, family_of
from verl_ext.models.families.refused import REFUSED
from verl_ext.models.family import Family
from verl_ext.models.model_files import ModelFiles

PATH = "actor_rollout_ref.model.path"
PADDING = "actor_rollout_ref.model.use_remove_padding"
PATCH_SIZE = "data.image_patch_size"
ATTENTION = "actor_rollout_ref.model.override_config.attn_implementation"
ADAPTER = "actor_rollout_ref.model.target_modules"
ABLATION = "perception.ablation.kind"
DROP_VISION = "drop_vision"
STRATEGY = "actor_rollout_ref.actor.strategy"
INSIST = "perception.unverified_model=True"

logger = get_logger(__name__)


def admit(model: ModelFiles, strategy: str, unverified: bool) -> Family:
    """The family of a model, if methods may run on it.

    Args:
        model: what its folder says.
        strategy: of verl's engine.
        unverified: whether the user insists; warns in place of refusing.

    Raises:
        ConfigurationError: its type is unknown, has no images, or cannot be trained, by this engine or at all; names
            the key, the type, why, and what is supported.
    """
    family = available_families().get(model.model_type)
    if family is None:
        _refuse(PATH, f"{model.path} (model_type {model.model_type})", f"{_reason(model)}; {_supported()}", unverified)
        return family_of(model.model_type)
    if strategy not in family.engines:
        wanted = f"{family.name} was verified on {', '.join(family.engines)}; write one of them"
        _refuse(STRATEGY, strategy, wanted, unverified)
    return family


def check_packing(family: Family, packed: bool) -> None:
    """Refuse packed sequences that would leak into each other.

    Raises:
        ConfigurationError: the family needs a module for them that is not installed here.
    """
    if packed and family.packing_needs and find_spec(family.packing_needs) is None:
        remedy = (
            f"{family.name} has linear attention, which without flash-linear-attention carries its state from one "
            "packed sequence into the next: log-probabilities would be wrong and nothing would show it; write False, "
            "or pip install flash-linear-attention"
        )
        raise ConfigurationError(key=PADDING, value=packed, remedy=remedy)


def check_patch_size(family: Family, model: ModelFiles, configured: int | None) -> None:
    """Refuse a size of patches that is not the model's: prompts would be counted, and filtered, by other image tokens.

    Raises:
        ConfigurationError: names the right one.
    """
    own = model.patch_size(family.patch_size)
    if configured is not None and int(configured) != own:
        remedy = f"{family.name}'s processor has patches of {own} pixels; write {own}, or null to take the model's"
        raise ConfigurationError(key=PATCH_SIZE, value=configured, remedy=remedy)


def check_positions(family: Family, kinds: Iterable[str]) -> None:
    """Refuse to drop vision tokens where positions only count tokens: the others would move.

    Args:
        family: the model's.
        kinds: of the ablations.

    Raises:
        ConfigurationError: one of them drops tokens of a model without rotary positions of their own.
    """
    if family.position_rows == 1 and DROP_VISION in kinds:
        remedy = (
            f"{family.name} counts positions, which would shift without vision tokens; write another, such as blank"
        )
        raise ConfigurationError(key=ABLATION, value=DROP_VISION, remedy=remedy)


def check_split_sequences(family: Family, ranks: int, key: str, attention: str) -> None:
    """Refuse sequences split over ranks (Ulysses) whose parts nobody would join.

    Args:
        family: the model's.
        ranks: that share a sequence.
        key: where that is configured.
        attention: transformers' name of the implementation.

    Raises:
        ConfigurationError: verl does not split the family's sequences, or the implementation sees one part alone.
    """
    if ranks <= 1:
        return
    if not family.splits_sequences:
        remedy = f"verl does not split sequences of {family.name} over ranks; write 1"
        raise ConfigurationError(key=key, value=ranks, remedy=remedy)
    if not family.own_attention and "flash" not in attention:
        remedy = (
            f"{family.name}'s sequences are split over {ranks} ranks, whose parts only flash-attention joins; write "
            f"flash_attention_2, or {key}=1"
        )
        raise ConfigurationError(key=ATTENTION, value=attention, remedy=remedy)


def check_adapter(family: Family, rank: int, targets: Any) -> None:
    """Refuse an adapter (LoRA) on layers that cannot have one.

    Args:
        family: the model's.
        rank: of the adapter; 0 for none.
        targets: `target_modules`.

    Raises:
        ConfigurationError: names modules that can.
    """
    wanted = f"[{','.join(family.adapter_targets)}]"
    if rank > 0 and family.adapter_targets and isinstance(targets, str):
        remedy = f"{family.name}'s router is wrapped with all linear layers, and cannot be; write {wanted}"
        raise ConfigurationError(key=ADAPTER, value=targets, remedy=remedy)


def _refuse(key: str, value: str, remedy: str, unverified: bool) -> None:
    if not unverified:
        raise ConfigurationError(key=key, value=value, remedy=f"{remedy}; to try all the same, add {INSIST}")
    logger.warning("%s=%s: %s; going on, since %s", key, value, remedy, INSIST)


def _reason(model: ModelFiles) -> str:
    if model.model_type in REFUSED:
        return REFUSED[model.model_type]
    if not model.has_vision:
        return "its config.json has no vision_config, and without images there is nothing to take away"
    return "perception methods were never verified on it"


def _supported() -> str:
    known = ", ".join(f"{family.name} ({model_type})" for model_type, family in available_families().items())
    return f"supported are {known}"
