# SPDX-License-Identifier: Apache-2.0
"""The model of a worker, looked at before it is built: a model that was fetched has not been seen before."""

from __future__ import annotations

from omegaconf import DictConfig
from transformers import PretrainedConfig
from verl.utils.fs import copy_to_local

from verl_ext.models.admission import admit, check_packing
from verl_ext.models.model_files import ModelFiles, model_files


def admit_model(config: DictConfig, unverified: bool) -> None:
    """Check the type of the model and what packing needs on this machine.

    Args:
        config: `actor_rollout_ref` of verl's configuration.
        unverified: `perception.unverified_model`.

    Raises:
        ConfigurationError: methods do not run on it, or it cannot be packed here.
    """
    path = copy_to_local(config.model.path, use_shm=config.model.use_shm)
    model = model_files(path) or ModelFiles(path, PretrainedConfig.get_config_dict(path)[0], {})
    family = admit(model, config.actor.strategy, unverified)
    check_packing(family, config.model.use_remove_padding)
