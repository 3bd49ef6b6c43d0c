# SPDX-License-Identifier: Apache-2.0
"""verl keeps earlier weights by `Tensor.cpu()`, which on the CPU is the weights themselves and changes with them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from verl_ext.platforms.cpu.patching import replace_symbol


def patch(module: ModuleType) -> None:
    """Replace `verl.utils.fsdp_utils.fsdp2_sharded_save_to_cpu` (verl 0.9)."""
    replace_symbol(
        module,
        "fsdp2_sharded_save_to_cpu",
        _with_copies,
        distribution="verl",
        versions=">=0.9.0,<0.10",
        reason="on the CPU verl's saved weights share memory with the live ones",
    )


def _with_copies(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def fsdp2_sharded_save_to_cpu(model: Any) -> Any:
        saved, spec = original(model)
        return {name: (shard.clone(), placement) for name, (shard, placement) in saved.items()}, spec

    return fsdp2_sharded_save_to_cpu
