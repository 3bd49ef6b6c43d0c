# SPDX-License-Identifier: Apache-2.0
"""Methods of verl's engines while a pass is open, above all the one that runs a single micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

ForwardStep = Callable[..., tuple[Any, dict[str, Any]]]
"""`engine.forward_step(micro_batch, loss_function, forward_only)`; its second result holds the dict `model_output`,
whose jagged tensors (one row a sequence of the micro-batch) verl joins over micro-batches and returns."""


@contextmanager
def method_replaced(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """While open, `owner` runs `wrap(its own method)` in place of the method called `name`."""
    before = vars(owner).get(name)
    setattr(owner, name, wrap(getattr(owner, name)))
    try:
        yield
    finally:
        delattr(owner, name)
        if before is not None:
            setattr(owner, name, before)


def forward_step_replaced(engine: Any, wrap: Callable[[ForwardStep], ForwardStep]) -> AbstractContextManager[None]:
    """While open, `engine` runs every micro-batch through `wrap(its own forward_step)`."""
    return method_replaced(engine, "forward_step", wrap)
