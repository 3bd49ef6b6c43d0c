# SPDX-License-Identifier: Apache-2.0
"""Hydra calls this with the composed configuration before any verl command runs, hence before Ray starts."""

from __future__ import annotations

import traceback
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from verl_ext.errors import ConfigurationError
from verl_ext.integration.validation import validate


class ValidatePerception(Callback):
    """Installed by the `perception` configuration group, so only where that group is used."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the configuration.

        Raises:
            SystemExit: it does not fit, or could not be checked. Hydra turns every ordinary exception of a callback
                into a warning and goes on.
        """
        try:
            validate(config)
        except (ConfigurationError, OmegaConfBaseException) as error:
            raise SystemExit(f"verl-ext: {error}") from error
        except Exception as error:
            traceback.print_exc()
            raise SystemExit(f"verl-ext: the configuration could not be checked: {error!r}") from error
