# SPDX-License-Identifier: Apache-2.0
"""All methods by name: this package's, and those of other packages through the entry-point group `verl_ext.methods`."""

from __future__ import annotations

from importlib.metadata import entry_points

from verl_ext.methods import dvrp, papo, pepo, pgpo, tor, vepo, vgpo, vppo  # noqa: F401  registers them
from verl_ext.methods.base import Method
from verl_ext.methods.registry import registered

ENTRY_POINT_GROUP = "verl_ext.methods"


def available_methods() -> dict[str, type[Method]]:
    """All methods by name. Loads those announced by entry points."""
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        entry_point.load()
    return registered()
