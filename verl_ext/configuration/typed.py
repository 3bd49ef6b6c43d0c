# SPDX-License-Identifier: Apache-2.0
"""From a plain mapping to a typed, frozen dataclass, with errors that name the key, the value and the remedy."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_ext.errors import ConfigurationError

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any] | None, prefix: str) -> T:
    """Construct the dataclass `cls` from `values`.

    Args:
        cls: a dataclass whose fields may carry `bounds` or `choices` metadata (see `verl_ext.methods.base`).
        values: plain values by field name; None leaves every field at its default.
        prefix: configuration path of `values`, for error messages.

    Raises:
        ConfigurationError: not a mapping, unknown key, wrong type, value out of bounds or not among the choices.
    """
    values = {} if values is None else values
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not isinstance(values, Mapping):
        raise ConfigurationError(key=prefix, value=values, remedy=f"write its keys instead: {', '.join(known)}")
    for key, value in values.items():
        if key not in known:
            raise unknown_key(f"{prefix}.{key}", value, key, known)
        _check_type(cls, key, value, prefix)
        _check_value(known[key], value, prefix)
    typed = OmegaConf.merge(OmegaConf.structured(cls), dict(values))
    return OmegaConf.to_object(typed)  # type: ignore[return-value]


def unknown_key(path: str, value: object, key: str, known: Iterable[str]) -> ConfigurationError:
    """An error that suggests the nearest known key, or lists them all."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1)
    remedy = f"no such key; did you mean '{near[0]}'?" if near else f"no such key; known keys are {', '.join(names)}"
    return ConfigurationError(key=path, value=value, remedy=remedy)


def _check_type(cls: type, key: str, value: object, prefix: str) -> None:
    try:
        OmegaConf.merge(OmegaConf.structured(cls), {key: value})
    except OmegaConfBaseException as error:
        kind = {field.name: field.type for field in dataclasses.fields(cls)}[key]
        raise ConfigurationError(key=f"{prefix}.{key}", value=value, remedy=f"write a value of type {kind}") from error


def _check_value(field: dataclasses.Field[Any], value: Any, prefix: str) -> None:
    path = f"{prefix}.{field.name}"
    if "choices" in field.metadata and value not in field.metadata["choices"]:
        options = ", ".join(field.metadata["choices"])
        raise ConfigurationError(key=path, value=value, remedy=f"write one of {options}")
    if "bounds" in field.metadata and value is not None:
        low, high = field.metadata["bounds"]
        if not low <= float(value) <= high:
            raise ConfigurationError(key=path, value=value, remedy=f"write a value between {low:g} and {high:g}")
