# SPDX-License-Identifier: Apache-2.0
"""The module that verl's entry-point group `verl.plugins` loads at the end of `import verl`, in every process.

It must cost next to nothing there: the trainers are registered when verl imports its own v1 trainers, and never in
a process that has no use for them. verl hides the errors of its plug-ins, so they are logged here first.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

from verl_ext.logs import get_logger

logger = get_logger(__name__)


def register() -> None:
    """Register the CPU platform if it was asked for, and the trainers for when they are needed.

    Raises:
        Exception: whatever went wrong, after logging it at ERROR.
    """
    try:
        import wrapt

        if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
            import_module("verl_ext.platforms.cpu").register()
        wrapt.register_post_import_hook(_register_trainers, "verl.trainer.ppo.v1")
    except Exception:
        logger.exception("verl-ext could not register with verl; +perception=... will not work")
        raise


def _register_trainers(_module: ModuleType) -> None:
    try:
        import_module("verl_ext.integration.trainers")
    except Exception:
        # Not raised: it would fail the import of verl's own trainers, also for runs without perception methods.
        logger.exception("verl-ext could not register its trainers; +perception=... will not be found")


register()
