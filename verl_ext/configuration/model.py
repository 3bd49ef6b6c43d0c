# SPDX-License-Identifier: Apache-2.0
"""Does the model fit the methods, and the configuration the model? Checked before Ray starts, where the model is here."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from verl_ext.models.admission import PADDING, PATCH_SIZE, PATH, STRATEGY, admit, check_packing, check_patch_size
from verl_ext.models.model_files import model_files


def check_model(config: DictConfig, unverified: bool) -> None:
    """Check the model of a composed verl configuration; nothing for one that is not on this machine.

    Args:
        config: verl's.
        unverified: `perception.unverified_model`.

    Raises:
        ConfigurationError: its type is not supported, or padding, patch size or engine do not fit it.
    """
    model = model_files(str(OmegaConf.select(config, PATH)))
    if model is None:
        return
    family = admit(model, str(OmegaConf.select(config, STRATEGY)), unverified)
    check_packing(family, bool(OmegaConf.select(config, PADDING)))
    check_patch_size(family, model, OmegaConf.select(config, PATCH_SIZE))
