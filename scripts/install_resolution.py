# SPDX-License-Identifier: Apache-2.0
"""What steps of an installation bring, as uv resolves them for GPU machines; nothing is installed or compiled."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from install_steps import Step

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PYTHON = "3.12"
PLATFORM = "x86_64-manylinux_2_31"


@dataclass(frozen=True)
class Package:
    """A package of a resolution.

    Args:
        version: Its version; empty for this checkout.
        source: Where its source distribution is, if no wheel fits the platform.
    """

    version: str
    source: str | None = None


def resolved(steps: Sequence[Step]) -> dict[str, Package]:
    """What an environment holds after these steps, by canonical name.

    All requirements are resolved together, so that a later step replaces nothing unless an earlier one alone would
    have brought another version. What is installed without its dependencies constrains nothing, as with pip.

    Raises:
        ValueError: they do not resolve; with uv's reason.
    """
    whole = tuple(word for step in steps if step.dependencies for word in step.requirements)
    alone = tuple(word for step in steps if not step.dependencies for word in step.requirements)
    return {**compiled(whole), **compiled(alone, "--no-deps")}


@cache
def compiled(requirements: tuple[str, ...], *options: str) -> Mapping[str, Package]:
    """The resolution of some requirements; paths are those from the root of the checkout.

    Raises:
        ValueError: they do not resolve; with uv's reason.
    """
    if not requirements:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "pylock.toml"
        command = [
            uv(),
            "pip",
            "compile",
            "-",
            "--quiet",
            "--format",
            "pylock.toml",
            "--output-file",
            str(lock),
            *options,
        ]
        command += ["--python", sys.executable, "--no-python-downloads"]
        command += ["--python-version", PYTHON, "--python-platform", PLATFORM]
        done = subprocess.run(command, input="\n".join(requirements), cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(" ".join(done.stderr.split()))
        return {entry["name"]: package(entry) for entry in tomllib.loads(lock.read_text())["packages"]}


def package(entry: Mapping[str, Any]) -> Package:
    """A package of a lock file, in which uv leaves out the wheels of other platforms.

    Raises:
        ValueError: it has no file to install.
    """
    if "wheels" in entry or "directory" in entry:
        return Package(entry.get("version", ""))
    if "sdist" not in entry:
        raise ValueError(f"{entry['name']} {entry.get('version', '')} has neither a wheel for {PLATFORM} nor a source")
    return Package(entry["version"], entry["sdist"]["url"])


def uv() -> str:
    """The uv of this environment, or else that of the path.

    Raises:
        ValueError: there is none.
    """
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if found is None:
        raise ValueError("uv is not installed; `pip install -e '.[dev]'` brings it")
    return found
