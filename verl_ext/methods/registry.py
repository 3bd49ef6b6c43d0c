# SPDX-License-Identifier: Apache-2.0
"""The methods by name: this package's, and those of other packages through the entry-point group `verl_ext.methods`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TypeVar

from verl_ext.methods.base import Method

ENTRY_POINT_GROUP = "verl_ext.methods"

_METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=type[Method])


def register_method(cls: M) -> M:
    """Class decorator: make `cls` available as `perception.methods=[<cls.name>]`.

    Raises:
        ValueError: another class already has the name.
    """
    known = _METHODS.setdefault(cls.name, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"method name {cls.name!r} is taken by {known.__module__}.{known.__qualname__}")
    return cls


def available_methods() -> dict[str, type[Method]]:
    """All methods by name. Loads this package's own and those announced by entry points."""
    from verl_ext.methods import dvrp, papo, pepo, pgpo, tor, vepo, vgpo, vppo  # noqa: F401  registers them

    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        entry_point.load()
    return dict(sorted(_METHODS.items()))
