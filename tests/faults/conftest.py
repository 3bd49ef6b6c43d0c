# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from verl_ext.data.easy_vqa import write_easy_vqa
from verl_ext.data.markdown import markdown_table

KILLED = "killed"
HEADER = ("killed", "in", "the run ended after", "processes left 3 s later")


def pytest_collection_modifyitems(config, items):
    """What lies here is marked `faults`, and left out where -m does not speak of it."""
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    for item in ours:
        item.add_marker(pytest.mark.faults)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1200))
    if "faults" not in config.option.markexpr and ours:
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)


@pytest.fixture(scope="session")
def easy_vqa(tmp_path_factory):
    """easy-VQA in verl's schema."""
    folder = tmp_path_factory.mktemp("easy_vqa")
    write_easy_vqa(folder, val_size=32)
    return folder


@pytest.fixture
def note(record_property):
    """Have a kill's figures in the table at the end of the tests."""

    def noted(victim, moment, died):
        record_property(KILLED, (victim, moment, f"{died.seconds:.1f} s", str(died.left)))

    return noted


def pytest_terminal_summary(terminalreporter):
    passed = (report for report in terminalreporter.stats.get("passed", []) if report.when == "call")
    rows = [tuple(value) for report in passed for name, value in report.user_properties if name == KILLED]
    if rows:
        terminalreporter.write_line(markdown_table(HEADER, rows))
