# SPDX-License-Identifier: Apache-2.0
"""Figures for papers: which are drawn, their size, and how tokens are laid out."""

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.synthetic_run import plain_record, write_metrics, write_records, write_run

from verl_ext.report.figures import drawings, write_figure
from verl_ext.report.heat_map import MOST_TOKENS, pick
from verl_ext.report.runs import load_run
from verl_ext.report.token_flow import flow

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=30)


def load(folder, label="run"):
    return load_run(folder, [], label, 200)


def written(runs, folder):
    paths = [write_figure(drawing, folder) for drawing in drawings(runs)]
    return [path.stem for path in paths if path]


def test_all_figures_of_two_runs(tmp_path):
    runs = [
        load(write_run(tmp_path / name, steps=6, every=3, seed=seed), name) for seed, name in enumerate(("$a", "b_$"))
    ]
    assert written(runs, tmp_path) == [
        "reward",
        "accuracy",
        "accuracy_gap",
        "visual_dependency",
        "dependency_concentration",
        "effective_tokens",
        "entropy",
        "ablated_nll",
        "response_length",
        "collapse_signs",
        "cost_by_phase",
        "token_heat_map",
    ]
    with Image.open(tmp_path / "accuracy.png") as image:
        assert image.size == (1050, 750)
        assert image.info["dpi"] == pytest.approx((300, 300), abs=1)
        assert len(image.getcolors(2**20)) > 100


def test_one_step_and_nothing_else(tmp_path):
    write_metrics(tmp_path / "m.jsonl", [(1, {"critic/score/mean": 1.0, "actor/entropy": None})])
    assert written([load(tmp_path)], tmp_path) == ["reward"]


def test_runs_of_which_only_one_has_a_metric(tmp_path):
    write_metrics(tmp_path / "a/m.jsonl", [(1, {"critic/score/mean": 1.0, "timing_s/step": 2.0})])
    write_metrics(tmp_path / "b/m.jsonl", [(1, {"actor/entropy": 1.0})])
    assert written([load(tmp_path / "a"), load(tmp_path / "b")], tmp_path) == ["reward", "entropy", "cost_by_phase"]


def test_hostile_tokens_are_drawn_without_a_warning(tmp_path):
    write_metrics(tmp_path / "m.jsonl", [(1, {"a": 1.0})])
    tokens = ["$\\frac{", "\x00", "\u202e", "漢字", "</script>", "\n\n", "", "x" * 300, "\U0001f680"] * 3 + [
        ""
    ] * MOST_TOKENS
    write_records(
        tmp_path, 1, [plain_record(tokens=tokens, visual_dependency=[float("nan")] + [0.5] * (len(tokens) - 1))]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert written([load(tmp_path)], tmp_path) == ["token_heat_map"]


def test_the_heat_map_shows_a_right_answer_of_the_newest_step(tmp_path):
    write_metrics(tmp_path / "m.jsonl", [(1, {"a": 1.0})])
    write_records(tmp_path, 1, [plain_record(1, uid="early")])
    rows = [plain_record(2, uid="wrong", accuracy=0.0), plain_record(2, uid="right"), plain_record(2, uid="other")]
    write_records(tmp_path, 2, rows)
    write_records(tmp_path, 3, [plain_record(3, visual_dependency=[])])
    assert pick(load(tmp_path).responses).uid == "right"
    assert pick([]) is None


# Layout of tokens


def test_rows_of_tokens():
    cells = flow(["ab", " cde", "f\n\ng", "hijklm"], 5)
    assert [(cell.text, cell.row, cell.column) for cell in cells] == [
        ("ab", 0, 0),
        (" cde", 1, 0),
        ("f", 1, 4),
        ("g", 3, 0),
        ("hijkl", 4, 0),
        ("m", 5, 0),
    ]


@given(TEXTS, st.integers(2, 20))
def test_no_cell_leaves_its_row_or_covers_another(tokens, columns):
    cells = flow(tokens, columns)
    taken = [(cell.row, column) for cell in cells for column in range(cell.column, cell.column + cell.width)]
    assert len(taken) == len(set(taken))
    assert taken == sorted(taken)
    assert all(0 <= column < columns for _, column in taken)


@given(TEXTS)
def test_every_printable_character_is_laid_out(tokens):
    cells = flow(tokens, 12)
    for index, token in enumerate(tokens):
        text = "".join(cell.text for cell in cells if cell.token == index)
        assert text == "".join(c if c.isprintable() else "·" for c in token.replace("\n", ""))
