# SPDX-License-Identifier: Apache-2.0
"""verl asks for the process-group backend "cpu:gloo,<device>:<backend>", which torch refuses when both are the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from verl_ext.platforms.cpu.patching import replace_symbol


def patch(module: ModuleType) -> None:
    """Replace `verl.utils.distributed.initialize_global_process_group_ray` (verl 0.9)."""
    replace_symbol(
        module,
        "initialize_global_process_group_ray",
        _with_gloo,
        reason="torch refuses the backend string 'cpu:gloo,cpu:gloo'",
    )


def _with_gloo(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def initialize_global_process_group_ray(timeout_second: float | None = None, backend: str | None = None) -> Any:
        return original(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    return initialize_global_process_group_ray
