# SPDX-License-Identifier: Apache-2.0
"""Releases of verl that stand beside the environment, for tests on more than the installed one."""

import sys
from importlib.metadata import version
from pathlib import Path

INSTALLED = version("verl")


def folder_of(release):
    """Where the set-up script put a release; goes before everything else on PYTHONPATH."""
    folder = Path(sys.prefix) / f"verl-{release}"
    assert (folder / "verl").is_dir(), f"{folder} is missing; run scripts/setup.sh"
    return folder
