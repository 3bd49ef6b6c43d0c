# SPDX-License-Identifier: Apache-2.0
"""The metrics of a run's earlier attempts, which verl's file logger would overwrite when the run is resumed."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from verl_ext.report.metrics_file import earlier_name


def keep_metrics(config: DictConfig) -> Path | None:
    """Set the file of verl's file logger aside, if there is one with something in it.

    Call it where the run is going to resume, before the logger starts.

    Returns:
        Its new name, the next free `<stem>.<n>.jsonl` beside it; None if there was nothing to keep.
    """
    path = _file_of(config)
    if path is None or not path.is_file() or not path.stat().st_size:
        return None
    kept = next(name for number in range(1, 10**6) if not (name := earlier_name(path, number)).exists())
    path.rename(kept)
    return kept


def _file_of(config: DictConfig) -> Path | None:
    """Where verl's file logger writes, as its source decides it; None if it is not in use."""
    loggers = OmegaConf.select(config, "trainer.logger") or []
    if "file" not in ([loggers] if isinstance(loggers, str) else loggers):
        return None
    if path := _variable(config, "VERL_FILE_LOGGER_PATH"):
        return Path(path)
    folder = Path(_variable(config, "VERL_FILE_LOGGER_ROOT") or ".").expanduser()
    return folder / config.trainer.project_name / f"{config.trainer.experiment_name}.jsonl"


def _variable(config: DictConfig, name: str) -> str | None:
    """An environment variable as the training process will see it: Ray's `runtime_env` goes before the shell's."""
    given = OmegaConf.select(config, "ray_kwargs.ray_init.runtime_env.env_vars") or {}
    return given.get(name) or os.environ.get(name)
