# SPDX-License-Identifier: Apache-2.0
"""The one method of verl's engines that passes go through: what runs a single micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ForwardStep = Callable[..., tuple[Any, dict[str, Any]]]
"""`engine.forward_step(micro_batch, loss_function, forward_only)`; its second result holds the dict `model_output`,
whose jagged tensors (one row a sequence of the micro-batch) verl joins over micro-batches and returns."""


@contextmanager
def forward_step_replaced(engine: Any, wrap: Callable[[ForwardStep], ForwardStep]) -> Iterator[None]:
    """While open, `engine` runs every micro-batch through `wrap(its own forward_step)`."""
    before = vars(engine).get("forward_step")
    engine.forward_step = wrap(engine.forward_step)
    try:
        yield
    finally:
        del engine.forward_step
        if before is not None:
            engine.forward_step = before
