# SPDX-License-Identifier: Apache-2.0
"""A process of its own that imports verl, while the other checks go on."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SECONDS = 300


class Probe:
    """A process that does what `plugin_probe` says, from now on."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "verl_ext.doctor.plugin_probe"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(self) -> dict[str, Any]:
        """What it found; see there.

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
