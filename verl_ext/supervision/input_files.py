# SPDX-License-Identifier: Apache-2.0
"""The files that a run reads are there. verl itself looks for them a minute later, when Ray has started."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from verl_ext.errors import ConfigurationError

DATA = ("data.train_files", "data.val_files")
MODEL = "actor_rollout_ref.model.path"


def check_inputs(config: DictConfig) -> None:
    """Look for the data files and the model's folder on this machine, unless others may be the ones that read them.

    Raises:
        ConfigurationError: one is missing, or none is named.
    """
    if OmegaConf.select(config, "trainer.nnodes") != 1:
        return
    for key in DATA:
        value = OmegaConf.select(config, key)
        paths = list(value) if isinstance(value, ListConfig) else [value]
        if not paths or not all(path and isinstance(path, str) for path in paths):
            raise ConfigurationError(key=key, value=value, remedy="write the path of a Parquet file, or a list of them")
        for path in paths:
            if _is_here(path) and not Path(path).expanduser().exists():
                remedy = "there is no such file; correct the path (`verl-ext data --help` lists what it can prepare)"
                raise ConfigurationError(key=key, value=path, remedy=remedy)
    model = OmegaConf.select(config, MODEL)
    if not model or not isinstance(model, str):
        raise ConfigurationError(key=MODEL, value=model, remedy="write a model's folder, or its name at Hugging Face")
    if model.startswith(("/", "~", ".")) and not Path(model).expanduser().is_dir():
        raise ConfigurationError(key=MODEL, value=model, remedy="there is no such folder; correct the path")


def _is_here(path: str) -> bool:
    """Not at an address that verl copies files from."""
    return "://" not in path
