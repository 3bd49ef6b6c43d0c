# SPDX-License-Identifier: Apache-2.0
"""`scripts/quickstart.py` as a module: scripts are not in a package."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/quickstart.py"


def quickstart():
    """The module, anew."""
    specification = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
