# SPDX-License-Identifier: Apache-2.0
"""What a model's family means for a run, in words."""

from __future__ import annotations

from verl_ext.models.family import Family


def meaning(family: Family) -> str:
    """One line: its name, the engines that it was verified on, and what is special about it."""
    parts = [f"{family.name} ({family.model_type}), on {', '.join(family.engines)}", *_limits(family), family.remark]
    return "; ".join(part for part in parts if part)


def _limits(family: Family) -> list[str]:
    limits = []
    if family.deepstack:
        limits.append("similarity is of layer outputs before image features are added to them again (deepstack)")
    if family.hybrid:
        limits.append("no mask keeps linear attention from an image: without vision tokens it is the shorter sequence")
    if family.packing_needs:
        limits.append("packed sequences need flash-linear-attention")
    if not family.splits_sequences:
        limits.append("its sequences are not split over ranks")
    if family.adapter_targets:
        limits.append(f"LoRA on {', '.join(family.adapter_targets)} alone")
    return limits
