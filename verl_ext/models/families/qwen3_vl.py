# SPDX-License-Identifier: Apache-2.0
"""Qwen3-VL, dense and mixture of experts: larger patches, and image features also behind the first layers."""

from __future__ import annotations

from dataclasses import replace

from verl_ext.models.family import Family
from verl_ext.models.registry import register_family

QWEN3_VL = Family(
    model_type="qwen3_vl",
    name="Qwen3-VL",
    patch_size=16,
    deepstack=True,
    fused_kernels=True,
)

register_family(QWEN3_VL)
register_family(replace(QWEN3_VL, model_type="qwen3_vl_moe", name="Qwen3-VL-MoE"))
