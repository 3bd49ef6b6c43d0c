# SPDX-License-Identifier: Apache-2.0
"""Runs models of true sizes on any machine: large floats have a shape and no content, everything else is real.

What a batch is made of is decided by integers, which are computed, as are small floats. A large float is one zero seen
through strides of 0; an operation on any such gives another, of the shape that torch derives. So a whole model takes
no memory and next to no time, and code under test runs as it is, its decisions, views and hooks included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

LARGE = 2**16
"""Elements from which on a float has no content: more than tokens of a micro-batch, fewer than their states."""
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index"}


class ShapesOnly(TorchDispatchMode):
    """While open, large floats that are made have no content, and operations on them compute nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if types:
            return NotImplemented  # of tensors that first take themselves apart: nested ones
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(map(_is_large, tensors)):
            makes = not tensors or func._schema.name.startswith("aten::new_")
            return _made(func, args, kwargs) if makes else func(*args, **kwargs)
        if _is_view(func):
            return func(*args, **kwargs)
        return self._of_shapes(func, args, kwargs)

    def _of_shapes(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func._schema.name == "aten::equal":
            return args[0].shape == args[1].shape
        given = (args[0], _as_integers(args[1]), *args[2:]) if func._schema.name in INDEXING else args
        found = func(*tree_map(_on_meta, given), **tree_map(_on_meta, kwargs))
        written = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        if written:
            return kwargs["out"] if "out" in kwargs else (args[0] if found is not None else None)
        return tree_map(_without_content, found)


def large(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor without content."""
    return torch.zeros((), dtype=dtype).expand(tuple(shape))


def _is_large(value: Tensor) -> bool:
    return value.is_floating_point() and value.numel() >= LARGE


def _is_view(func: Any) -> bool:
    return any(a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments)


def _made(func: Any, args: Any, kwargs: Any) -> Any:
    """What a function makes of nothing but a shape."""
    if any(argument.name == "device" for argument in func._schema.arguments):
        made = func(*tree_map(_on_meta, args), **{**tree_map(_on_meta, kwargs), "device": "meta"})
        if isinstance(made, Tensor) and _is_large(made):
            return _without_content(made)
    return func(*args, **kwargs)


def _as_integers(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Masks, whose number of elements no shape tells, as positions."""
    found: list[Tensor | None] = []
    for index in indices:
        found += index.nonzero(as_tuple=True) if index is not None and index.dtype == torch.bool else [index]
    return found


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def _without_content(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.numel() >= LARGE:
        return large(value.shape, value.dtype)
    return torch.zeros(value.shape, dtype=value.dtype)
