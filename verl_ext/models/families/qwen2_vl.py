# SPDX-License-Identifier: Apache-2.0
"""Qwen2-VL and Qwen2.5-VL. On Megatron, verl has a bridge for the newer one alone."""

from __future__ import annotations

from dataclasses import replace

from verl_ext.models.family import FSDP, MEGATRON, Family
from verl_ext.models.registry import register_family

QWEN2_VL = Family(model_type="qwen2_vl", name="Qwen2-VL", fused_kernels=True, own_attention=True)

register_family(QWEN2_VL)
register_family(replace(QWEN2_VL, model_type="qwen2_5_vl", name="Qwen2.5-VL", engines=(*FSDP, MEGATRON)))
