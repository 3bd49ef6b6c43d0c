# SPDX-License-Identifier: Apache-2.0
"""Where a method puts itself to be found by name."""

from __future__ import annotations

from typing import TypeVar

from verl_ext.methods.base import Method

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


def registered() -> dict[str, type[Method]]:
    """The methods that were registered so far, by name."""
    return dict(sorted(_METHODS.items()))
