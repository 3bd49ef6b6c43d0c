# SPDX-License-Identifier: Apache-2.0
"""The table of `docs/rewards.md` that compares verdicts with those of the papers' rule, against the code."""

import json
import re
from pathlib import Path

import pytest

from verl_ext.rewards.math_answer import compute_score
from verl_ext.rewards.options import Options

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/rewards.md").read_text()
MATHRULER = json.loads((ROOT / "tests/golden/data/mathruler_verdicts.json").read_text())["cases"]
LIMITS = {
    (r"\boxed{\sin 30^\circ}", "0.5"): "no",
    (r"\boxed{5m}", "5"): "yes",
    (r"\boxed{no solutions}", "no solution"): "no",
    (r"\boxed{2} or \boxed{3", "2"): "yes",
}
"""Where the verdict here is not what a reader would say; the page names these as limits."""
ROW = re.compile(r"\| `(.+)` \| `(.+)` \| (yes|no) \| (yes|no) \| (yes|no) \|")
ROWS = [row.groups() for row in map(ROW.fullmatch, PAGE.splitlines()) if row]


@pytest.mark.parametrize(("response", "truth", "right", "papers", "here"), ROWS)
def test_verdicts(response, truth, right, papers, here):
    result = compute_score("table", response, truth)
    assert result["timeout"] == 0.0
    assert ("yes" if result["acc"] else "no") == here
    assert LIMITS.get((response, truth), right) == here
    assert (right == here) == ((response, truth) not in LIMITS)


def test_the_papers_verdicts_are_mathrulers():
    assert [[response, truth, papers == "yes"] for response, truth, _, papers, _ in ROWS] == MATHRULER


def test_the_summary_counts_the_table():
    wrong = [row for row in ROWS if row[2] == "no"]
    told = [int(number) for number in re.findall(r"\d+", PAGE.split("\nOf ")[1].split("\n| ")[0])]
    papers, here = (sum(row[2] == row[column] for row in ROWS) for column in (3, 4))
    fooled = [sum(row[column] == "yes" for row in wrong) for column in (3, 4)]
    assert told == [len(ROWS), papers, here, len(wrong), *fooled]
    assert len(ROWS) == PAGE.count("\n| `\\boxed") + 2 >= 60


def test_the_options_table_says_the_defaults():
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", PAGE, re.MULTILINE)
    assert {name: float(default) for name, default in rows} == vars(Options())
