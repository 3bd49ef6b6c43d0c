# SPDX-License-Identifier: Apache-2.0
"""Data sets on the Hugging Face Hub: one module each, with a `HubDataSet` called `DATA_SET`."""

import pkgutil
from importlib import import_module

from verl_ext.data.data_set import HubDataSet


def hub_data_sets() -> list[HubDataSet]:
    """All data sets of this package, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [import_module(f"{__name__}.{name}").DATA_SET for name in names]
