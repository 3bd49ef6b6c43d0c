# SPDX-License-Identifier: Apache-2.0
"""What this package relies on in verl, read from `contract.yaml`, and its comparison with the installed verl."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

TABLE = Path(__file__).with_name("contract.yaml")


@dataclass(frozen=True)
class Symbol:
    """A symbol of verl's.

    Attributes:
        name: `module:qualified.name`.
        used_in: our file that uses it.
        overridden: its parameters, where we override it: any change matters.
        called: how we call it: positional arguments by their names here, then keyword arguments as `name=`.
        defaults: defaults that we rely on.
        source: what its source must say, where we rely on more than the signature.
    """

    name: str
    used_in: str
    overridden: tuple[str, ...] | None = None
    called: tuple[str, ...] | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)
    source: tuple[str, ...] = ()


def symbols() -> list[Symbol]:
    """The table."""
    table: Any = OmegaConf.to_container(OmegaConf.load(TABLE))
    return [_symbol(name, file, entry) for file, entries in table.items() for name, entry in entries.items()]


def _symbol(name: str, file: str, entry: Mapping[str, Any]) -> Symbol:
    words: dict[str, Any] = {key: tuple(entry[key].split()) for key in ("overridden", "called") if key in entry}
    return Symbol(name, file, **{**entry, "source": tuple(entry.get("source", ())), **words})


def complaints(symbols: Iterable[Symbol]) -> list[str]:
    """What the installed verl no longer has as `symbols` say; one line each, naming our file that relies on it.

    Imports the modules that the symbols come from.
    """
    return [complaint for symbol in symbols if (complaint := _complaint(symbol)) is not None]


def _complaint(symbol: Symbol) -> str | None:
    try:
        found = _find(symbol.name)
        for check in (_parameters_changed, _not_callable, _defaults_changed, _source_changed):
            if (what := check(symbol, found)) is not None:
                return _broken(symbol, what)
    except (ImportError, AttributeError) as error:
        return _broken(symbol, f"is gone ({error})")
    return None


def _broken(symbol: Symbol, what: str) -> str:
    return f"verl {version('verl')}: {symbol.name} {what}; verl_ext/{symbol.used_in} relies on it"


def _find(name: str) -> Any:
    module, _, qualified = name.partition(":")
    return functools.reduce(getattr, qualified.split("."), importlib.import_module(module))


def _parameters_changed(symbol: Symbol, found: Any) -> str | None:
    if symbol.overridden is None:
        return None
    names = tuple(inspect.signature(found).parameters)
    return None if names == symbol.overridden else f"takes {names}, formerly {symbol.overridden}"


def _not_callable(symbol: Symbol, found: Any) -> str | None:
    if symbol.called is None:
        return None
    positional, keywords = _call_of(symbol.called)
    signature = inspect.signature(found)
    try:
        (signature.bind_partial if inspect.isclass(found) else signature.bind)(*positional, **keywords)
    except TypeError as error:
        return f"cannot be called as {symbol.called} any more ({error})"
    return None


def _call_of(called: tuple[str, ...]) -> tuple[list[None], dict[str, None]]:
    """As many positional arguments, and such keyword arguments."""
    keywords = [name[:-1] for name in called if name.endswith("=")]
    return [None] * (len(called) - len(keywords)), dict.fromkeys(keywords)


def _defaults_changed(symbol: Symbol, found: Any) -> str | None:
    parameters = inspect.signature(found).parameters if symbol.defaults else {}
    for name, default in symbol.defaults.items():
        now = parameters[name].default if name in parameters else "(no such parameter)"
        if now != default:
            return f"has the default {name}={now}, formerly {default}"
    return None


def _source_changed(symbol: Symbol, found: Any) -> str | None:
    source = inspect.getsource(inspect.unwrap(found)) if symbol.source else ""
    missing = [text for text in symbol.source if text not in source]
    return f"no longer says {missing}" if missing else None
