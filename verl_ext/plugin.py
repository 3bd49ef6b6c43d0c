# SPDX-License-Identifier: Apache-2.0
"""The module that verl's entry-point group `verl.plugins` loads at the end of `import verl`, in every process.

It must cost next to nothing there: estimators and trainers are registered when verl imports its own. verl hides the
errors of its plug-ins, so they are logged here first.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from verl_ext.logs import get_logger

logger = get_logger(__name__)


def register() -> None:
    """Register the CPU platform if it was asked for, and the rest for when it is needed.

    Raises:
        Exception: whatever went wrong, after logging it at ERROR.
    """
    try:
        import wrapt

        if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
            import_module("verl_ext.platforms.cpu").register()
        wrapt.register_post_import_hook(_register_estimators, "verl.trainer.ppo.core_algos")
        wrapt.register_post_import_hook(_register_trainers, "verl.trainer.ppo.v1")
        wrapt.register_post_import_hook(_check_estimator_first, "verl.utils.config")
    except Exception:
        logger.exception("verl-ext could not register with verl; +perception=... will not work")
        raise


def _register_estimators(_module: ModuleType) -> None:
    _import("verl_ext.trainer.estimators", "advantage estimators")


def _register_trainers(_module: ModuleType) -> None:
    _import("verl_ext.trainer.trainers", "trainers")


def _import(module: str, what: str) -> ModuleType | None:
    try:
        return import_module(module)
    except Exception:
        # Not raised: it would fail the import of verl's own, also for runs without perception methods.
        logger.exception("verl-ext could not register its %s; +perception=... will not be found", what)
        return None


def _check_estimator_first(module: ModuleType) -> None:
    """Have verl's check of a configuration, which every run passes before Ray, refuse estimators that nobody feeds."""
    verls = module.validate_config

    @functools.wraps(verls)
    def validate_config(*args: Any, **kwargs: Any) -> Any:
        config = kwargs["config"] if "config" in kwargs else args[0]
        estimators: Any = _import("verl_ext.configuration.estimators", "check of the estimator")
        if estimators and (error := estimators.unmeasured(config)):
            raise SystemExit(f"verl-ext: {error}") from error
        if estimators and "use_critic" in kwargs and estimators.weights_gae(config):
            kwargs["use_critic"] = True
        return verls(*args, **kwargs)

    # A plain function: what is defined in a user's main program is pickled with what it refers to.
    for owner in (module, sys.modules["verl.utils"]):
        if getattr(owner, "validate_config", None) is verls:
            owner.validate_config = validate_config  # type: ignore[attr-defined]


register()
