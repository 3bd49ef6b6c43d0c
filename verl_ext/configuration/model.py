# SPDX-License-Identifier: Apache-2.0
"""Does the model fit the methods, and the configuration the model? Asked before Ray starts, and in the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ext.configuration.section import Perception
from verl_ext.errors import ConfigurationError
from verl_ext.models import fitness
from verl_ext.models.admission import admit, admit_engine
from verl_ext.models.family import Family
from verl_ext.models.model_files import PATH, ModelFiles, model_files

ROLES = "actor_rollout_ref"
FLASH_ATTENTION = "flash_attention_2"
"""verl's choice where the configuration makes none."""
SEQUENCE_PARALLEL_KEYS = (
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
    "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size",
)
REFERENCE_KEYS = tuple(key.replace(".actor.", ".ref.") for key in SEQUENCE_PARALLEL_KEYS)
STRATEGIES = ("actor_rollout_ref.actor.strategy", "actor_rollout_ref.ref.strategy")


def check_model(config: DictConfig, perception: Perception) -> None:
    """Check the model of a composed verl configuration; nothing for one that has yet to be fetched.

    Args:
        config: verl's.
        perception: its section, parsed.

    Raises:
        ConfigurationError: its type is not supported, or a value does not fit it.
    """
    _check_path(str(_get(config, PATH)))
    model = _files(config)
    if model is None:
        return
    on_cpu = _get(config, "trainer.device") == "cpu"
    family = check_roles(config, model, perception, on_cpu, works=lambda module: find_spec(module) is not None)
    if not family.guessed:
        own = model.patch_size(family.patch_size)
        fitness.check_patch_size(family.name, own, _get(config, fitness.PATCH_SIZE))


def family_of_configured(config: DictConfig, perception: Perception) -> Family | None:
    """The family of the configured model; None for one that has yet to be fetched."""
    model = _files(config)
    return None if model is None else admit(model, perception.options.unverified_model)


def _files(config: DictConfig) -> ModelFiles | None:
    config_path, processor_path = (_get(config, f"{ROLES}.model.{name}_path") for name in ("hf_config", "tokenizer"))
    return model_files(str(config_path or _get(config, PATH)), processor_path)


def check_roles(
    config: DictConfig, model: ModelFiles, perception: Perception, on_cpu: bool, works: Callable[[str], bool]
) -> Family:
    """Check a model against the actor's and the reference's part of the configuration.

    Args:
        config: verl's, or as much of it as `actor_rollout_ref`.
        model: what its folder says.
        perception: the `perception` section, parsed.
        on_cpu: whether this is the CPU platform, which joins parts in transformers' own attention.
        works: whether the kernels of a module can be used.

    Returns:
        The model's family.

    Raises:
        ConfigurationError: its type is not supported, or a value does not fit it.
    """
    unverified = perception.options.unverified_model
    family = admit(model, unverified)
    for key in STRATEGIES:
        admit_engine(family, key, str(_get(config, key)), unverified)
    fitness.check_positions(family, [view.kind for view in perception.views.values()])
    fitness.check_packing(family, bool(_get(config, fitness.PADDING)), works)
    fitness.check_fused_kernels(family, bool(_get(config, fitness.FUSED_KERNELS)))
    fitness.check_adapter(family, int(_get(config, f"{ROLES}.model.lora_rank") or 0), _get(config, fitness.ADAPTER))
    fitness.check_sharing(family, perception.options.share_prompts)
    _check_sequences(config, family, ("flash_attention", "sdpa") if on_cpu else ("flash_attention",))
    return family


def _check_sequences(config: DictConfig, family: Family, joining: Iterable[str]) -> None:
    attention = str(_get(config, fitness.ATTENTION) or FLASH_ATTENTION)
    for key in (*SEQUENCE_PARALLEL_KEYS, *REFERENCE_KEYS):
        fitness.check_split_sequences(family, key, int(_get(config, key) or 1), attention, tuple(joining))


def _check_path(path: str) -> None:
    """What verl fails on in the worker, without a word about the key."""
    if path.endswith("/"):
        raise ConfigurationError(key=PATH, value=path, remedy="verl takes no path with a slash at its end; write none")
    if path.startswith(("/", "./", "../", "~")) and not Path(path).is_dir():
        raise ConfigurationError(key=PATH, value=path, remedy="there is no such folder; correct the path")


def _get(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key)
