# SPDX-License-Identifier: Apache-2.0
"""What is going on, said on stderr where it takes long, while the libraries that are looked at keep quiet."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import click

PATIENCE = 2.0
"""Seconds before anything is said."""


class Progress:
    """Says what is being done, and keeps everything else from the screen.

    Args:
        verbose: let what is looked at print to stderr.
        command: name of the command, which begins what is said.
    """

    def __init__(self, verbose: bool = False, command: str = "doctor") -> None:
        self._command = command
        self._screen = sys.stderr
        self._prints = sys.stderr if verbose else io.StringIO()

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """While open, nothing reaches stdout; after `PATIENCE` seconds, `what` is said."""
        timer = threading.Timer(PATIENCE, self._say, [what])
        timer.start()
        try:
            with redirect_stdout(self._prints), redirect_stderr(self._prints):
                yield
        finally:
            timer.cancel()

    def _say(self, what: str) -> None:
        click.echo(f"{self._command}: {what} ...", file=self._screen)
