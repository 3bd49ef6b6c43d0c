# SPDX-License-Identifier: Apache-2.0
"""What a family cannot be run with: each check refuses one value of verl's configuration, before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from verl_ext.errors import ConfigurationError
from verl_ext.models.family import Family

PADDING = "actor_rollout_ref.model.use_remove_padding"
FUSED_KERNELS = "actor_rollout_ref.model.use_fused_kernels"
PATCH_SIZE = "data.image_patch_size"
ATTENTION = "actor_rollout_ref.model.override_config.attn_implementation"
ADAPTER = "actor_rollout_ref.model.target_modules"
ABLATION = "perception.ablation.kind"
DROP_VISION = "drop_vision"
ALL_LINEAR = "all-linear"


def check_packing(family: Family, packed: bool, works: Callable[[str], bool]) -> None:
    """Refuse packed sequences that would leak into each other.

    Args:
        family: the model's.
        packed: whether sequences are.
        works: whether the kernels of a module can be used here.

    Raises:
        ConfigurationError: the family needs those of a module, and they cannot.
    """
    if packed and family.packing_needs and not works(family.packing_needs):
        remedy = (
            f"{family.name} has linear attention, which without flash-linear-attention carries its state from one "
            "packed sequence into the next: log-probabilities would be wrong and nothing would show it; write False, "
            "or pip install flash-linear-attention"
        )
        raise ConfigurationError(key=PADDING, value=packed, remedy=remedy)


def check_fused_kernels(family: Family, fused: bool) -> None:
    """Refuse fused kernels where verl's forward for them leaves the images out.

    Raises:
        ConfigurationError: it does.
    """
    if fused and not family.fused_kernels:
        remedy = f"verl's fused kernels give {family.name} no images, and nothing would show it; write False"
        raise ConfigurationError(key=FUSED_KERNELS, value=fused, remedy=remedy)


def check_patch_size(name: str, own: int, configured: Any) -> None:
    """Refuse a size of patches that is not the model's: prompts would be counted, and filtered, by other image tokens.

    Args:
        name: of the model.
        own: side of its patches in pixels.
        configured: `data.image_patch_size`; None takes the model's.

    Raises:
        ConfigurationError: names the right one.
    """
    if configured is not None and configured != own:
        remedy = f"{name}'s processor has patches of {own} pixels; write {own}, or null to take the model's"
        raise ConfigurationError(key=PATCH_SIZE, value=configured, remedy=remedy)


def check_positions(family: Family, kinds: Iterable[str]) -> None:
    """Refuse to drop vision tokens where positions only count tokens: the others would move.

    Args:
        family: the model's.
        kinds: of the ablations.

    Raises:
        ConfigurationError: one of them drops tokens of a model without rotary positions of their own.
    """
    if family.position_rows == 1 and DROP_VISION in kinds:
        remedy = f"{family.name} counts positions, which would shift without vision tokens; write another kind"
        raise ConfigurationError(key=ABLATION, value=DROP_VISION, remedy=remedy)


def check_split_sequences(family: Family, key: str, ranks: int, attention: str, joining: Iterable[str]) -> None:
    """Refuse sequences split over ranks (Ulysses) whose parts nobody would join.

    Args:
        family: the model's.
        key: where it is configured how many ranks share a sequence.
        ranks: that number.
        attention: transformers' name of the implementation.
        joining: implementations that join parts.

    Raises:
        ConfigurationError: verl does not split the family's sequences, or the implementation sees one part alone.
    """
    if ranks <= 1:
        return
    if not family.splits_sequences:
        raise ConfigurationError(
            key=key, value=ranks, remedy=f"verl does not split sequences of {family.name} over ranks; write 1"
        )
    if not family.own_attention and not any(name in attention for name in joining):
        remedy = (
            f"the parts of {family.name}'s sequences are joined by {' or '.join(joining)} alone; write it, or {key}=1"
        )
        raise ConfigurationError(key=ATTENTION, value=attention, remedy=remedy)


def check_adapter(family: Family, rank: int, targets: Any) -> None:
    """Refuse an adapter (LoRA) on layers that cannot have one.

    Args:
        family: the model's.
        rank: of the adapter; 0 for none.
        targets: `target_modules`: names, an expression for names, or "all-linear".

    Raises:
        ConfigurationError: names modules that can.
    """
    if rank <= 0 or not family.adapter_targets or (isinstance(targets, str) and targets != ALL_LINEAR):
        return
    if isinstance(targets, str) or not targets or not set(targets) <= set(family.adapter_targets):
        remedy = (
            f"{family.name}'s router cannot have an adapter; write [{','.join(family.adapter_targets)}] or some of it"
        )
        raise ConfigurationError(key=ADAPTER, value=targets, remedy=remedy)


def check_sharing(family: Family, share: bool | None) -> None:
    """Refuse to share prompts where a layer's state cannot branch off behind one.

    Args:
        family: the model's.
        share: `perception.share_prompts`; None shares wherever that is possible.

    Raises:
        ConfigurationError: the configuration insists, and the family has layers without full attention.
    """
    if share and not family.shares_prompts:
        reason = "has linear attention, whose state" if family.hybrid else "was not looked at; the state of its layers"
        remedy = f"{family.name} {reason} may not branch off behind a prompt; write null or False"
        raise ConfigurationError(key="perception.share_prompts", value=share, remedy=remedy)
