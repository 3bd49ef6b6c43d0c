# SPDX-License-Identifier: Apache-2.0
"""Replacing a symbol of another package, only where its version is one that was read, and never silently."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from types import ModuleType
from typing import Any

from packaging.specifiers import SpecifierSet

VERL = ">=0.9.0,<0.10"


class PatchError(RuntimeError):
    """A symbol that the CPU platform must replace is gone, or belongs to a version that nobody has checked."""


def replace_symbol(
    owner: ModuleType | type,
    name: str,
    wrap: Callable[[Any], Any],
    *,
    reason: str,
    distribution: str = "verl",
    versions: str = VERL,
) -> None:
    """Set `owner.name` to `wrap(original)`.

    Args:
        owner: the imported module or class that has the symbol.
        name: the symbol.
        wrap: receives the original and returns the replacement.
        reason: why the CPU platform needs it, for the error message.
        distribution: the installed distribution that the symbol comes from.
        versions: the version range in which the symbol has the meaning assumed here.

    Raises:
        PatchError: the distribution is missing or outside `versions`, or the symbol does not exist.
    """
    where = f"{owner.__name__}.{name}"
    try:
        installed = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        known = f"{distribution}{versions}, which is not installed"
        raise PatchError(f"{where} is known in {known}; needed because {reason}") from error
    if not SpecifierSet(versions).contains(installed, prereleases=True):
        raise PatchError(f"{where} is known in {distribution}{versions}, found {installed}; needed because {reason}")
    if not hasattr(owner, name):
        raise PatchError(f"{where} does not exist in {distribution} {installed}; needed because {reason}")
    setattr(owner, name, wrap(getattr(owner, name)))
