# SPDX-License-Identifier: Apache-2.0
"""docs/configuration.md says what the typed configurations say, and says something about every key."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[3]


def script():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts/write_configuration_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current():
    written = script()
    assert written.PAGE.read_text() == written.page(), "run scripts/write_configuration_reference.py"


def test_every_key_has_a_meaning():
    rows = [line for line in script().PAGE.read_text().splitlines() if line.startswith("| `perception.")]
    assert len(rows) > 50
    assert [row for row in rows if row.split("|")[-2].strip() == ""] == []


def test_comments_reach_the_keys_of_their_paragraph():
    text = "a:\n\n  # One.\n  b: 1\n  c:\n    d: 2\n\n  e: 3\n\n# Two.\nf: 4\n"
    assert script().comments(text) == {
        ("a",): "",
        ("a", "b"): "One.",
        ("a", "c"): "One.",
        ("a", "c", "d"): "One.",
        ("a", "e"): "",
        ("f",): "Two.",
    }


def test_no_two_keys_of_a_section_have_the_same_meaning():
    for section in script().PAGE.read_text().split("\n## "):
        meanings = [line.split(" | ")[-1] for line in section.splitlines() if line.startswith("| `perception.")]
        assert len(set(meanings)) == len(meanings), section[:40]
