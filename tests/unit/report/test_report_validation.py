# SPDX-License-Identifier: Apache-2.0
"""Which validation metrics are drawn where runs have several, and what is said of those that do not compare."""

import json

import pytest
from click.testing import CliRunner
from support.synthetic_run import write_metrics

from verl_ext.cli import main
from verl_ext.report.page_data import blocks
from verl_ext.report.runs import Run
from verl_ext.report.validation import choose_metrics, sources, with_notes


def metric(what, source="s"):
    return f"val-core/{source}/{what}"


def blind(what):
    return metric(what, "s_blind")


def run_of(label, *names, steps=(0, 10)):
    return Run(label, [(step, dict.fromkeys(names, 0.5 + step / 100)) for step in steps], [], [])


def notes(*runs):
    return [run.notes for run in with_notes(runs)]


@pytest.mark.parametrize(
    ("own", "twin", "chosen", "alike"),
    [
        (["acc/mean@1", "acc/mean@16", "acc/mean@8"], [], ("acc/mean@16", None), False),
        (["acc/mean@1", "acc/mean@8"], ["acc/mean@1"], ("acc/mean@1", "acc/mean@1"), True),
        (["acc/mean@8", "acc/mean@16"], ["acc/mean@8", "acc/mean@16"], ("acc/mean@16", "acc/mean@16"), True),
        (["acc/mean@8"], ["acc/mean@1", "acc/mean@4"], ("acc/mean@8", "acc/mean@4"), False),
        (["acc/mean@1", "reward/mean@8"], [], ("acc/mean@1", None), False),
        (["acc/mean@1", "reward/mean@8"], ["reward/mean@8"], ("reward/mean@8", "reward/mean@8"), True),
        ([], ["acc/mean@2"], (None, "acc/mean@2"), False),
    ],
)
def test_accuracy_and_the_most_answers_are_drawn(own, twin, chosen, alike):
    names = [*map(metric, own), *map(blind, twin)]
    found = choose_metrics("s", names)
    first, second = chosen
    assert (found.metric, found.blind) == (first and metric(first), second and blind(second))
    assert found.alike is alike
    assert set(names) == {found.metric, found.blind, *found.others} - {None}


def test_a_blind_twin_is_no_source_even_where_another_run_has_the_other():
    assert sources([[blind("acc/mean@1")], [metric("acc/mean@8")]]) == ["s"]
    assert sources([[blind("acc/mean@1")]]) == ["s_blind"]


def test_runs_of_different_numbers_of_answers_stand_side_by_side():
    runs = [
        run_of("pgpo", metric("acc/mean@1"), blind("acc/mean@1")),
        run_of("vppo", metric("acc/mean@8"), blind("acc/mean@8")),
        run_of("bare", "critic/score/mean"),
    ]
    report = next(json.loads(block.json) for block in blocks(runs) if block.id == "report")
    accuracy, gap = (panel for panel in report["panels"] if panel["key"].startswith("accuracy"))
    assert [[line["metric"] for line in lines] for lines in accuracy["lines"]] == [
        [metric("acc/mean@1"), blind("acc/mean@1")],
        [metric("acc/mean@8"), blind("acc/mean@8")],
        [],
    ]
    assert [[(line["metric"], line["minus"]) for line in lines] for lines in gap["lines"]] == [
        [(metric("acc/mean@1"), blind("acc/mean@1"))],
        [(metric("acc/mean@8"), blind("acc/mean@8"))],
        [],
    ]
    shown = [[value["panel"] for value in run["overview"]] for run in report["runs"]]
    assert shown == [["accuracy", "accuracy", "accuracy_gap"]] * 2 + [["reward"]]


def test_a_metric_that_never_is_a_number_is_not_chosen():
    (accuracy, *_) = json.loads(next(blocks([odd_run()])).json)["panels"]
    assert [line["metric"] for line in accuracy["lines"][0]] == [metric("acc/mean@1")]


def odd_run():
    return Run("odd", [(0, {metric("acc/mean@1"): 0.5, metric("acc/mean@8"): None})], [], [])


def test_what_compares_needs_no_note():
    assert notes(*(run_of(label, metric("acc/mean@1"), blind("acc/mean@1")) for label in "ab")) == [[], []]
    assert notes(run_of("a", metric("acc/mean@1")), run_of("b", metric("acc/mean@4", "other"))) == [[], []]


def test_what_does_not_compare_is_named():
    one, eight, reward = (run_of(what, metric(what)) for what in ("acc/mean@1", "acc/mean@8", "reward/mean@1"))
    assert notes(run_of("bare"), one, eight, reward) == [
        [],
        [],
        [
            "val-core/s/acc/mean@8 is drawn in one plot with val-core/s/acc/mean@1 of acc/mean@1; "
            "a mean of fewer answers a question varies more"
        ],
        [
            "val-core/s/reward/mean@1 is drawn in one plot with val-core/s/acc/mean@1 of acc/mean@1; "
            "accuracy and reward do not compare"
        ],
    ]
    assert notes(run_of("a", metric("acc/mean@8"), blind("acc/mean@1"))) == [
        ["val-core/s/acc/mean@8 and val-core/s_blind/acc/mean@1 do not compare; their difference is not drawn"]
    ]
    assert notes(run_of("a", metric("acc/mean@8"), metric("acc/mean@1"))) == [
        ["val-core/s/acc/mean@1: not drawn beside val-core/s/acc/mean@8, but under All metrics"]
    ]


def test_the_command_says_it_and_so_does_the_page(tmp_path):
    for name, what in (("a", "acc/mean@1"), ("b", "acc/mean@8")):
        write_metrics(tmp_path / name / "m.jsonl", [(0, {metric(what): 0.5})])
    words = ["report", *(str(tmp_path / name) for name in "ab"), "--no-png", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "b: val-core/s/acc/mean@8 is drawn in one plot with val-core/s/acc/mean@1 of a" in result.stderr
    assert "is drawn in one plot with" in (tmp_path / "out/report.html").read_text()
