# SPDX-License-Identifier: Apache-2.0
"""The module that verl's entry-point group `verl.plugins` loads at the end of `import verl`, in every process.

It must cost next to nothing there: estimators and trainers are registered when verl imports its own, and never in a
process that has no use for them. verl hides the errors of its plug-ins, so they are logged here first.
"""

from __future__ import annotations

import os
from functools import partial
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
        check = partial(wrapt.wrap_function_wrapper, name="validate_config", wrapper=_validate_config)
        wrapt.register_post_import_hook(check, "verl.utils.config")
    except Exception:
        logger.exception("verl-ext could not register with verl; +perception=... will not work")
        raise


def _register_estimators(_module: ModuleType) -> None:
    _import("verl_ext.trainer.estimators", "advantage estimators")


def _register_trainers(_module: ModuleType) -> None:
    _import("verl_ext.trainer.trainers", "trainers")


def _import(module: str, what: str) -> None:
    try:
        import_module(module)
    except Exception:
        # Not raised: it would fail the import of verl's own, also for runs without perception methods.
        logger.exception("verl-ext could not register its %s; +perception=... will not be found", what)


def _validate_config(verls: Any, _instance: None, args: Any, kwargs: Any) -> Any:
    """verl's check of a configuration, the one place before Ray that a run without our configuration group passes.

    Raises:
        SystemExit: the run asks for an estimator that weights by what nobody measures.
    """
    from verl_ext.configuration.estimators import refuse_unmeasured
    from verl_ext.errors import ConfigurationError

    try:
        refuse_unmeasured(kwargs["config"] if "config" in kwargs else args[0])
    except ConfigurationError as error:
        raise SystemExit(f"verl-ext: {error}") from error
    return verls(*args, **kwargs)


register()
