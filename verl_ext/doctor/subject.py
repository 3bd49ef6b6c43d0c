# SPDX-License-Identifier: Apache-2.0
"""What is examined, as far as the checks before have got. Every check takes it, and some add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from verl.workers.config import HFModelConfig

    from verl_ext.configuration.section import Perception
    from verl_ext.doctor.plugin_probe import Probe


CONFIG_NAME = "ppo_trainer"
"""verl's own configuration."""


@dataclass(frozen=True)
class Prompts:
    """Sizes of the first prompts of the training data.

    Attributes:
        tokens: length of the longest, in tokens with those of its images.
        image_bytes: bytes of the pixels that the processor makes for the prompt with the most.
    """

    tokens: int
    image_bytes: int


@dataclass
class Subject:
    """An installation, and the run that a configuration describes.

    Attributes:
        overrides: as main_ppo would get them.
        config_path, config_name: the same.
        probe: a process of its own that imports verl.
        config: verl's configuration, composed; None before, or where it does not compose.
        perception: its `perception` section; None without one, or where it is not usable.
        refused: whether the package refuses the configuration.
        model: the model as verl's trainer knows it; None where it is not on this machine.
        rows: the first rows of the training data.
        prompts: their sizes; None where the model's processor is not at hand.
    """

    overrides: Sequence[str] = ()
    config_path: str | None = None
    config_name: str = CONFIG_NAME
    probe: Probe | None = None
    config: DictConfig | None = None
    perception: Perception | None = None
    refused: bool = False
    model: HFModelConfig | None = None
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)
    prompts: Prompts | None = None

    @property
    def composed(self) -> DictConfig:
        """The configuration, for checks that run only where there is one."""
        assert self.config is not None
        return self.config

    def get(self, key: str, default: Any = None) -> Any:
        """Value of a dotted key of the configuration; `default` where it is missing or null."""
        from omegaconf import OmegaConf

        value = OmegaConf.select(self.composed, key)
        return default if value is None else value
