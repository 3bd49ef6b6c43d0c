# SPDX-License-Identifier: Apache-2.0
"""All families: this package's, and those of other packages through the entry-point group `verl_ext.model_families`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from verl_ext.models.families import glm4v, qwen2_vl, qwen3_5, qwen3_vl  # noqa: F401  registers them
from verl_ext.models.family import Family
from verl_ext.models.registry import registered

ENTRY_POINT_GROUP = "verl_ext.model_families"


def available_families() -> dict[str, Family]:
    """All families by `model_type`. Loads those announced by entry points."""
    _load_announced()
    return registered()


def family_of(model_type: str) -> Family:
    """The family of a model that was let in: a registered one, or Qwen2.5-VL's ways where the user insisted."""
    return available_families().get(model_type) or Family(model_type=model_type, name=model_type, guessed=True)


@cache
def _load_announced() -> None:
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        entry_point.load()
