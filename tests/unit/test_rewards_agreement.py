# SPDX-License-Identifier: Apache-2.0
"""The table of `docs/rewards.md` that compares verdicts with those of the papers' rule, against the code."""

import re
from pathlib import Path

import pytest

from verl_ext.rewards.math_answer import compute_score
from verl_ext.rewards.options import Options

PAGE = (Path(__file__).parents[2] / "docs/rewards.md").read_text()
ROW = re.compile(r"\| `(.+)` \| `(.+)` \| (yes|no) \| (yes|no) \| (yes|no) \|")
ROWS = [row.groups() for row in map(ROW.fullmatch, PAGE.splitlines()) if row]


@pytest.mark.parametrize(("response", "truth", "right", "papers", "here"), ROWS)
def test_verdicts(response, truth, right, papers, here):
    result = compute_score("table", response, truth)
    assert result["timeout"] == 0.0
    assert ("yes" if result["acc"] else "no") == here


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
