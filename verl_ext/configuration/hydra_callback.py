# SPDX-License-Identifier: Apache-2.0
"""Hydra calls this with the composed configuration before a verl command runs, so before Ray starts, and at its end."""

from __future__ import annotations

import atexit
import sys
import time
import traceback
from typing import Any

import ray
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from verl_ext.configuration.validation import validate
from verl_ext.errors import ConfigurationError
from verl_ext.supervision.checkpoints import resumed_from
from verl_ext.supervision.input_files import check_inputs
from verl_ext.supervision.kept_metrics import keep_metrics
from verl_ext.supervision.stop_reason import last_words

SECONDS_FOR_RAYS_LINES = 0.5


class ValidatePerception(Callback):
    """Installed by the `perception` configuration group, so only where that group is used."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check configuration, files and the checkpoint to resume from, and keep the metrics that a resumed run has.

        Raises:
            SystemExit: one of them does not fit, or could not be checked. Hydra turns every ordinary exception of a
                callback into a warning and goes on.
        """
        try:
            validate(config, HydraConfig.get().overrides.task if HydraConfig.initialized() else ())
            check_inputs(config)
            checkpoint = resumed_from(config)
            kept = keep_metrics(config) if checkpoint else None
        except (ConfigurationError, OmegaConfBaseException) as error:
            raise SystemExit(f"verl-ext: {error}") from error
        except Exception as error:
            traceback.print_exc()
            raise SystemExit(f"verl-ext: the configuration could not be checked: {error!r}") from error
        if checkpoint:
            _say(f"resuming from {checkpoint}" + (f"; the metrics up to here are kept in {kept}" if kept else ""))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Have the reason why a run failed printed last, after the traceback."""
        if job_return.status is not JobStatus.FAILED:
            return
        try:
            # Raises what the run raised.
            _ = job_return.return_value
        except Exception as error:
            atexit.register(_say_last, last_words(error, config))


def _say_last(text: str) -> None:
    """After the lines of Ray's processes, which arrive a little late and are printed until Ray is shut down."""
    time.sleep(SECONDS_FOR_RAYS_LINES)
    ray.shutdown()
    _say(text)


def _say(text: str) -> None:
    print(f"verl-ext: {text}", file=sys.stderr, flush=True)
