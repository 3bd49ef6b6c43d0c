# SPDX-License-Identifier: Apache-2.0
"""Run as a program: import verl and its trainers, and print as JSON what became of the plug-in.

verl reports the errors of plug-ins at DEBUG only; this package's own log says them at ERROR.
"""

from __future__ import annotations

import json
import logging
import sys
from importlib import import_module

PLUGIN = "verl_ext.plugin"
LOGGER = "verl.plugins"


class _Errors(logging.Handler):
    """Keeps what is logged with an exception, one line each."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception of `record`."""
        if record.exc_info:
            kind, error, _ = record.exc_info
            self.lines.append(f"{record.getMessage()}: {getattr(kind, '__name__', kind)}: {error}")


def main() -> None:
    """Print one line."""
    errors = _Errors()
    logging.getLogger(LOGGER).addHandler(errors)
    broken = _import_error("verl")
    loaded = PLUGIN in sys.modules
    broken_trainers = broken or _import_error("verl.trainer.ppo.v1")
    registry = getattr(sys.modules.get("verl.trainer.ppo.v1.trainer_base"), "TRAINER_REGISTRY", ())
    found = {
        "verl": broken,
        "loaded": loaded,
        "errors": errors.lines,
        "verls_trainers": broken_trainers,
        "trainers": sorted(registry),
    }
    print(json.dumps(found))


def _import_error(module: str) -> str | None:
    """What importing `module` raises, or None."""
    try:
        import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


if __name__ == "__main__":
    main()
