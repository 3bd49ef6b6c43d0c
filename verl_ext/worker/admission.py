# SPDX-License-Identifier: Apache-2.0
"""The model of a worker, looked at before it is built: a model that was fetched has not been seen before."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf
from transformers import PretrainedConfig
from transformers.utils.import_utils import is_flash_linear_attention_available
from verl.utils.device import get_device_name
from verl.utils.fs import copy_to_local

from verl_ext.configuration.model import ROLES, check_roles
from verl_ext.configuration.section import Perception
from verl_ext.models.family import Family
from verl_ext.models.model_files import ModelFiles, model_files


def admit_model(config: DictConfig, perception: Perception) -> Family:
    """Check the model, with the words that are said before Ray starts where the model is there already.

    Args:
        config: `actor_rollout_ref` of verl's configuration.
        perception: the `perception` section, parsed.

    Returns:
        The model's family.

    Raises:
        ConfigurationError: methods do not run on it, or a value does not fit it.
    """
    path = copy_to_local(config.model.get("hf_config_path") or config.model.path, use_shm=config.model.use_shm)
    model = model_files(path) or ModelFiles(path, PretrainedConfig.get_config_dict(path)[0], {})
    whole = OmegaConf.create({ROLES: config})
    return check_roles(whole, model, perception, get_device_name() == "cpu", works=_works)


def _works(_module: str) -> bool:
    """Whether transformers uses flash-linear-attention, the one that families need; that it is there is not enough."""
    return is_flash_linear_attention_available()
