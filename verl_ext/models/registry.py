# SPDX-License-Identifier: Apache-2.0
"""All families by the `model_type` of a model's `config.json`."""

from __future__ import annotations

from verl_ext.models.family import Family

_families: dict[str, Family] = {}


def register_family(family: Family) -> Family:
    """Make a family known.

    Raises:
        ValueError: another family has its `model_type`.
    """
    if _families.setdefault(family.model_type, family) != family:
        raise ValueError(f"model_type {family.model_type!r} is {_families[family.model_type].name}'s already")
    return family


def registered() -> dict[str, Family]:
    """The families registered so far, by `model_type`."""
    return dict(_families)
