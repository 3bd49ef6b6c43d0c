# SPDX-License-Identifier: Apache-2.0
"""A vision tower that is not trained: frozen before FSDP shards the model, kept free of adapters, run without a graph.

Whatever lies inside the tower's module is frozen with it: Qwen-VL's and GLM's merger does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch

from verl_ext.models.vision_tower import vision_tower


def freeze_vision_tower(model: Any, as_one_unit: bool) -> None:
    """Freeze the tower of a model that FSDP has yet to shard.

    Args:
        model: as transformers has built it, or peft.
        as_one_unit: whether to have verl's wrap policy shard the tower as a unit of its own. FSDP1 flattens all that a
            unit holds into one parameter, which needs a gradient or needs none.
    """
    tower = vision_tower(model)
    assert tower is not None, "the model was let in, so it has a tower"
    tower.requires_grad_(False)
    tower.forward = torch.no_grad()(tower.forward)
    if as_one_unit:
        model._no_split_modules = [*model._no_split_modules, type(tower).__name__]


def has_adapter(model: torch.nn.Module) -> bool:
    """Whether peft has put anything into the tower."""
    tower = vision_tower(model)
    return tower is not None and any("lora_" in name for name, _ in tower.named_modules())


def excluding_tower(excluded: str | Iterable[str] | None, tower: str) -> str:
    """peft's `exclude_modules` with the tower added.

    Args:
        excluded: an expression for whole names, or last parts of names.
        tower: last part of its name.
    """
    own = rf"(.*\.)?{re.escape(tower)}(\..*)?"
    if not excluded:
        return own
    if not isinstance(excluded, str):
        excluded = rf"(.*\.)?({'|'.join(map(re.escape, excluded))})"
    return f"({excluded})|{own}"
