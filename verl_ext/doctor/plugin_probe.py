# SPDX-License-Identifier: Apache-2.0
"""A process of its own that imports verl and its trainers, and prints as JSON what became of the plug-in.

verl reports the errors of plug-ins at DEBUG only; this package's own log says them at ERROR.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from importlib import import_module
from typing import Any

PLUGIN = "verl_ext.plugin"
LOGGER = "verl.plugins"
SECONDS = 300


class Probe:
    """The process, from now on."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "verl_ext.doctor.plugin_probe"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self) -> dict[str, Any]:
        """What it found; see `main`.

        Raises:
            RuntimeError: it printed nothing; with the last line of its errors.
            TimeoutExpired: it took longer than `SECONDS`, and was killed.
        """
        try:
            output, errors = self._process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        if self._process.returncode != 0:
            raise RuntimeError((errors.strip().splitlines() or [f"exit status {self._process.returncode}"])[-1])
        return json.loads(output.splitlines()[-1])


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
    """What the process does: print one line."""
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
