# SPDX-License-Identifier: Apache-2.0
"""Processes that end with this one, also where it is interrupted."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path


class Stopped(Exception):
    """No process is started any more."""


class Processes:
    """Started from several threads; all are ended by `stop`."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> int:
        """Exit status of a command whose output goes to `log`.

        Raises:
            Stopped: `stop` was called before.
        """
        with log.open("w") as output:
            with self._lock:
                if self._stopped:
                    raise Stopped
                process = subprocess.Popen(
                    command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder
                )
                self._running.add(process)
            status = process.wait()
        with self._lock:
            self._running.remove(process)
        return status

    def stop(self) -> None:
        """Ask all of them to end, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()
