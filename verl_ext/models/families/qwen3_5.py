# SPDX-License-Identifier: Apache-2.0
"""Qwen3.5, dense and mixture of experts: most layers are linear attention."""

from __future__ import annotations

from dataclasses import replace

from verl_ext.models.family import Family
from verl_ext.models.registry import register_family

QWEN3_5 = Family(
    model_type="qwen3_5",
    name="Qwen3.5",
    patch_size=16,
    hybrid=True,
    fused_kernels=True,
    packing_needs="fla",
)

register_family(QWEN3_5)
register_family(replace(QWEN3_5, model_type="qwen3_5_moe", name="Qwen3.5-MoE"))
