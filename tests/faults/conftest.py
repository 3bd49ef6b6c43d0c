# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from verl_ext.data.easy_vqa import write_easy_vqa


def pytest_collection_modifyitems(config, items):
    """What lies here is marked `faults`, and left out where -m does not speak of it."""
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    for item in ours:
        item.add_marker(pytest.mark.faults)
    if "faults" not in config.option.markexpr and ours:
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)


@pytest.fixture(scope="session")
def easy_vqa(tmp_path_factory):
    """easy-VQA in verl's schema."""
    folder = tmp_path_factory.mktemp("easy_vqa")
    write_easy_vqa(folder, val_size=32)
    return folder
