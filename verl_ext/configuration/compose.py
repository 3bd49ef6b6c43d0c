# SPDX-License-Identifier: Apache-2.0
"""verl's configuration as Hydra composes it for `python -m verl.trainer.main_ppo`, without running anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict

from verl_ext.configuration.typed import unknown_key
from verl_ext.errors import ConfigurationError

PACKAGE = "verl.trainer"
CONFIG_NAME = "ppo_trainer"
RELATIVE_PATH = "main_ppo looks for a relative path in verl's own package; write an absolute one"


def compose(overrides: Sequence[str], config_path: str | None = None, config_name: str = CONFIG_NAME) -> DictConfig:
    """The configuration that main_ppo would get from the same command line.

    Args:
        overrides: Hydra overrides, such as `+perception=pgpo` or `trainer.nnodes=2`.
        config_path: what main_ppo would get as `--config-path`; None is verl's own configuration.
        config_name: what main_ppo would get as `--config-name`.

    Raises:
        ConfigurationError: Hydra refuses an override, or does not find the configuration.
    """
    return compose_with_choices(overrides, config_path, config_name)[0]


def compose_with_choices(
    overrides: Sequence[str], config_path: str | None = None, config_name: str = CONFIG_NAME
) -> tuple[DictConfig, Mapping[str, str | None]]:
    """As `compose`, and which file was chosen of each configuration group, such as `recipe` or `perception`.

    Raises:
        ConfigurationError: Hydra refuses an override, or does not find the configuration.
    """
    try:
        return _composed(overrides, config_path, config_name)
    except HydraException as error:
        raise _explained(error, overrides, config_path, config_name) from error


def _composed(
    overrides: Sequence[str], config_path: str | None, config_name: str
) -> tuple[DictConfig, dict[str, str | None]]:
    with _source(config_path):
        config = hydra.compose(config_name, overrides=list(overrides), return_hydra_config=True)
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return config, choices  # type: ignore[return-value]


def _source(config_path: str | None) -> hydra.initialize_config_dir | hydra.initialize_config_module:
    """Where main_ppo looks for the configuration: Hydra takes a relative path from the package of the command."""
    if config_path is not None and Path(config_path).is_absolute():
        return hydra.initialize_config_dir(config_path, version_base=None)
    module = ".".join([PACKAGE, *Path(config_path or "config").parts])
    return hydra.initialize_config_module(module, version_base=None)


def _explained(
    error: HydraException, overrides: Sequence[str], config_path: str | None, config_name: str
) -> ConfigurationError:
    """Hydra's message with the override that it is about."""
    message = " ".join(str(error if str(error) else error.__cause__).split())
    override = error.override if isinstance(error, OverrideParseException) else _override_in(message, overrides)
    if override is None:
        return _explained_source(error, message, config_path, config_name)
    key, _, value = override.partition("=")
    if message.startswith("Could not override"):
        rest = [other for other in overrides if other != override]
        section = _section(key, rest, config_path, config_name)
        if section is not None:
            return unknown_key(key, value, key.rpartition(".")[2], map(str, section))
    return ConfigurationError(key=key, value=value, remedy=message)


def _explained_source(
    error: HydraException, message: str, config_path: str | None, config_name: str
) -> ConfigurationError:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is None:
        remedy = message if Path(config_path or "/").is_absolute() else RELATIVE_PATH
        return ConfigurationError(key="--config-path", value=config_path, remedy=remedy)
    return ConfigurationError(key="--config-name", value=config_name, remedy=message)


def _override_in(message: str, overrides: Sequence[str]) -> str | None:
    """The override that a message of Hydra quotes."""
    for override in overrides:
        key, _, value = override.partition("=")
        name = key.lstrip("+~").partition("@")[0]
        if any(quoted in message for quoted in (f"'{name}'", f"'{name}/{value}'", override)):
            return override
    return None


def _section(key: str, overrides: Sequence[str], config_path: str | None, config_name: str) -> DictConfig | None:
    """The section of a configuration that a key names, if there is one."""
    try:
        config, _ = _composed(overrides, config_path, config_name)
    except HydraException:
        return None
    parent = key.rpartition(".")[0]
    section = OmegaConf.select(config, parent) if parent else config
    return section if isinstance(section, DictConfig) else None
