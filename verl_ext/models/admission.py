# SPDX-License-Identifier: Apache-2.0
"""Is a model one that perception methods were verified on?"""

from __future__ import annotations

from verl_ext.errors import ConfigurationError
from verl_ext.logs import get_logger
from verl_ext.models.available import available_families, family_of
from verl_ext.models.families.refused import REFUSED
from verl_ext.models.family import FSDP, MEGATRON, Family
from verl_ext.models.model_files import PATH, ModelFiles

INSIST = "perception.unverified_model=True"

logger = get_logger(__name__)


def admit(model: ModelFiles, unverified: bool) -> Family:
    """The family of a model, if methods may run on it.

    Args:
        model: what its folder says.
        unverified: whether the user insists; warns in place of refusing.

    Raises:
        ConfigurationError: its type is unknown, has no images, or cannot be trained; names the key, the type, why, and
            what is supported.
    """
    family = available_families().get(model.model_type)
    if family is None:
        value = f"{model.path} (model_type {model.model_type})"
        _refuse(PATH, value, f"{reason_against(model)}; {_supported()}", unverified)
    return family or family_of(model.model_type)


def admit_engine(family: Family, key: str, strategy: str, unverified: bool) -> None:
    """Refuse one of verl's engines that a family was not verified on.

    Args:
        family: the model's.
        key: where the engine is chosen.
        strategy: the engine's name.
        unverified: whether the user insists; warns in place of refusing.

    Raises:
        ConfigurationError: names those that it was.
    """
    # Any other engine is refused whatever the model.
    if strategy not in family.engines and strategy in (*FSDP, MEGATRON):
        wanted = f"{family.name} was verified on {', '.join(family.engines)}; write one of them"
        _refuse(key, strategy, wanted, unverified)


def reason_against(model: ModelFiles) -> str:
    """Why a model of no registered family is refused."""
    if "model_type" not in model.config:
        return "its config.json has no model_type"
    if model.model_type in REFUSED:
        return REFUSED[model.model_type]
    if not model.has_vision:
        return "its config.json names no vision tower, and without images there is nothing to take away"
    return "perception methods were never verified on it"


def _refuse(key: str, value: str, remedy: str, unverified: bool) -> None:
    if not unverified:
        raise ConfigurationError(key=key, value=value, remedy=f"{remedy}; to try all the same, add {INSIST}")
    logger.warning("%s=%s: %s; going on, since %s", key, value, remedy, INSIST)


def _supported() -> str:
    known = ", ".join(f"{family.name} ({model_type})" for model_type, family in available_families().items())
    return f"supported are {known}"
