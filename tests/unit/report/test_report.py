# SPDX-License-Identifier: Apache-2.0
import json

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_ext.report.metrics_file import read_steps, series
from verl_ext.report.summary import improvement, summarise
from verl_ext.report.token_view import SHADES, latest_records, shaded

# Metrics files


def lines(*steps):
    return "".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in steps)


def test_read_steps_in_order(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(lines((2, {"a": 2.0}), (1, {"a": 1.0}), (10, {"b": 3.0})))
    assert read_steps([path]) == [(1, {"a": 1.0}), (2, {"a": 2.0}), (10, {"b": 3.0})]


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path):
    first, resumed = tmp_path / "first.jsonl", tmp_path / "resumed.jsonl"
    first.write_text(lines((1, {"a": 1.0}), (2, {"a": 2.0, "b": 2.0}), (3, {"a": 3.0})))
    resumed.write_text(lines((2, {"a": 20.0}), (3, {"a": 30.0}), (4, {"a": 40.0})))
    # What the resumed run did not measure again stays, such as the training of a step that it only validated anew.
    assert read_steps([first, resumed]) == [
        (1, {"a": 1.0}),
        (2, {"a": 20.0, "b": 2.0}),
        (3, {"a": 30.0}),
        (4, {"a": 40.0}),
    ]


def test_an_unfinished_last_line_is_left_out(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(lines((1, {"a": 1.0})) + '{"step": 2, "da')
    assert read_steps([path]) == [(1, {"a": 1.0})]
    path.write_text('{"step": 2, "da')
    assert read_steps([path]) == []
    path.write_text("")
    assert read_steps([path]) == []
    assert read_steps([]) == []


def test_series():
    steps = [(1, {"a": 1.0}), (2, {"b": 2.0}), (3, {"a": 3.0})]
    assert series(steps, "a") == [(1, 1.0), (3, 3.0)]
    assert series(steps, "c") == []


# Summary


def made_up_steps():
    """Ten steps: reward 0.1 to 1.0, validation at steps 0, 5 and 10."""
    steps = [(0, {"val-core/shapes/acc/mean@1": 0.5, "val-core/shapes_blind/acc/mean@1": 0.2})]
    for step in range(1, 11):
        data = {
            "critic/score/mean": step / 10,
            "perception/rollout_actor_log_prob_corr": 0.999 if step == 4 else 0.9999,
            "timing_s/gen": 100.0 if step == 1 else 2.0,
            "timing_s/ablated_log_prob": 100.0 if step == 1 else 0.1 * step,
            "timing_s/step": 300.0 if step == 1 else 5.0,
        }
        if step % 5 == 0:
            data["val-core/shapes/acc/mean@1"] = 0.8 if step == 10 else 0.1
            data["val-core/shapes_blind/acc/mean@1"] = 0.1
        steps.append((step, data))
    return steps


def test_summary():
    # Standard errors: sqrt(.5 * .5 / 100) = .05, sqrt(.8 * .2 / 100) = .04, sqrt(.2 * .8 / 100) = .04, .03.
    # Rewards: (.1 + .2) / 2 and (.9 + 1.) / 2. Seconds: the mean of .2, .3, ..., 1. is .6.
    assert summarise(made_up_steps(), source="shapes", questions=100).splitlines() == [
        "accuracy on held-out questions            before           after   change",
        "  with image                       0.500 ± 0.050   0.800 ± 0.040   +0.300",
        "  image taken away (blind)         0.200 ± 0.040   0.100 ± 0.030   -0.100",
        "",
        "training reward, first and last 2 steps: 0.150 -> 0.950",
        "rollout and actor log-probabilities, lowest correlation of any step: 0.999000",
        "",
        "mean seconds a step, after the first: gen 2.00, ablated_log_prob 0.60, step 5.00",
    ]


def test_improvement():
    change, error = improvement(made_up_steps(), source="shapes", questions=100)
    assert change == pytest.approx(0.3)
    assert error == pytest.approx((0.05**2 + 0.04**2) ** 0.5)


# Token view


def record(tokens, dependency):
    return {"tokens": tokens, "visual_dependency": dependency}


def test_values_without_colour():
    line = shaded(record(["a", " red", " circle"], [0.0, 2.0, 0.31]), colour=False)
    assert line == "a red[2.0] circle[0.3]"


def test_small_values_are_not_shown():
    # A tenth of the highest is the least that is shown.
    assert shaded(record(["x", "y", "z"], [10.0, 1.0, 0.99]), colour=False) == "x[10.0]y[1.0]z"


def test_colours_follow_the_value():
    tokens = ["none", "low", "most"]
    line = shaded(record(tokens, [0.0, 0.4, 1.0]), colour=True)
    assert line == ("none" + click.style("low", bg=SHADES[2], fg=231) + click.style("most", bg=SHADES[5], fg=16))
    assert "\x1b[" in line
    assert click.unstyle(line) == "nonelowmost"


@pytest.mark.parametrize("colour", [False, True])
def test_control_characters_never_reach_the_terminal(colour):
    tokens = ["\x1b[2J", "a\nb", "\r", "\x07", "\u202e", "\x9b31m", "ok"]
    line = shaded(record(tokens, [0.0] * 6 + [1.0]), colour=colour)
    assert "".join(c for c in click.unstyle(line) if not c.isprintable()) == ""
    assert click.unstyle(line).startswith(" [2Ja b    31mok")
    codes = line.count("\x1b")
    assert codes == (3 if colour else 0)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("dependency", [[], [0.0, 0.0]])
def test_nothing_measured_and_nothing_visual(colour, dependency):
    assert shaded(record(["a", "b"], dependency), colour=colour) == "ab"


def test_latest_records(tmp_path):
    assert latest_records(tmp_path) == []
    for step in (2, 10, 9):
        rows = [record([f"step{step}"], [1.0])]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"step_{step:06d}.parquet")
    assert latest_records(tmp_path) == [record(["step10"], [1.0])]
