# SPDX-License-Identifier: Apache-2.0
"""What the report reads: metrics and records of a run's folder, whole, partial, old, broken."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_run import OLDER_SCHEMA, SCHEMA, plain_record, write_metrics, write_records, write_run

from verl_ext.errors import DataError
from verl_ext.records import token_records as records
from verl_ext.report.metrics_file import read_steps, series
from verl_ext.report.panels import OTHER_PHASE, Line, panels, phase_seconds, points
from verl_ext.report.runs import load_run
from verl_ext.report.selection import choose


def load(folder, *metrics, limit=200):
    return load_run(folder, metrics, "run", limit)


def step(number, **data):
    return number, data


# Metrics


def test_a_whole_run(tmp_path):
    run = load(write_run(tmp_path, steps=20, every=10, rows=8))
    assert [number for number, _ in run.steps] == list(range(21))
    assert [response.step for response in run.responses] == [10] * 8 + [20] * 8
    assert run.notes == []


def test_a_resumed_run_replaces_the_steps_that_it_repeats(tmp_path):
    # By name and by age the resumed run comes first; its first step says that it is the later one.
    write_metrics(tmp_path / "b.jsonl", [step(1, a=1.0), step(2, a=2.0), step(3, a=3.0)])
    write_metrics(tmp_path / "a.jsonl", [step(3, a=30.0), step(4, a=40.0)])
    os.utime(tmp_path / "a.jsonl", (1, 1))
    assert series(load(tmp_path).steps, "a") == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]


def test_of_two_runs_from_the_same_step_the_newer_file_counts(tmp_path):
    write_metrics(tmp_path / "b.jsonl", [step(1, a=1.0)])
    write_metrics(tmp_path / "a.jsonl", [step(1, a=2.0)])
    os.utime(tmp_path / "a.jsonl", (1, 1))
    assert series(load(tmp_path).steps, "a") == [(1, 1.0)]


def test_metrics_elsewhere(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_metrics(tmp_path / "elsewhere.jsonl", [step(1, a=1.0)])
    assert load(run, tmp_path / "elsewhere.jsonl").steps == [step(1, a=1.0)]
    with pytest.raises(DataError, match=r"missing\.jsonl: no such file"):
        load(run, tmp_path / "missing.jsonl")


def test_without_metrics_the_error_says_how_to_log_them(tmp_path):
    with pytest.raises(DataError, match=r"trainer.logger=\[console,file\].*VERL_FILE_LOGGER_PATH"):
        load(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load(tmp_path / "missing")


def test_numbers_that_are_none_leave_a_gap(tmp_path):
    write_metrics(tmp_path / "m.jsonl", [step(1, a=1.0), step(2, a=None), step(3, a=float("nan")), step(4, a=4.0)])
    odd = {"a": "text", "b": [1], "c": True, "d": 10**400}
    (tmp_path / "m.jsonl").open("a").write(json.dumps({"step": 5, "data": odd}) + "\n")
    run = load(tmp_path)
    assert series(run.steps, "a") == [(1, 1.0), (4, 4.0)]
    assert run.notes == ["values that are not finite numbers are left out: a, b, c, d"]


def test_an_unfinished_line_is_left_out_even_within_a_character(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1, "data": {"a": 1.0}}\n{"step": 2, "data": {"\xc3')
    assert load(tmp_path).steps == [step(1, a=1.0)]


BROKEN_LINES = {
    "cut": "{",
    "list": "[]",
    "no data": '{"step": 1}',
    "text as step": '{"step": "1", "data": {}}',
    "list as data": '{"step": 1, "data": []}',
    "empty": "",
    "deeply nested": '{"step": 1, "data": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}",
    "step beyond all": '{"step": 99999999999999999999999, "data": {"a": 1.0}}',
}


@pytest.mark.parametrize("line", BROKEN_LINES.values(), ids=BROKEN_LINES)
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1, "data": {"a": 1.0}}\n' + line + "\n")
    with pytest.raises(DataError, match=r"m\.jsonl:2: not a line of verl's file logger"):
        read_steps([path])


def test_other_json_lines_are_noted(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl", [step(1, a=1.0)])
    (tmp_path / "samples.jsonl").write_text('{"input": "x", "output": "y"}\n')
    run = load(tmp_path)
    assert run.steps == [step(1, a=1.0)]
    assert len(run.notes) == 1
    assert "samples.jsonl is left out" in run.notes[0]


# Plots


def test_panels_of_the_metrics_that_there_are():
    found = panels([["critic/score/mean", "actor/entropy", "perception/visual_dependency/p95", "anything"]])
    assert [panel.key for panel in found] == ["reward", "visual_dependency", "entropy"]
    assert [line.name for line in found[1].lines[0]] == ["95th percentile"]


def test_accuracy_beside_blind_accuracy_and_their_difference():
    names = ["val-core/shapes/acc/mean@1", "val-core/shapes_blind/acc/mean@1"]
    accuracy, gap = panels([names])
    assert [(line.metric, line.dashed) for line in accuracy.lines[0]] == [(names[0], False), (names[1], True)]
    steps = [(0, dict.fromkeys(names, 0.25)), (1, {names[0]: 1.0}), (2, {names[0]: 0.75, names[1]: 0.5})]
    assert points(steps, gap.lines[0][0]) == [(0, 0.0), (2, 0.25)]


def test_every_data_source_has_its_panels():
    names = ["val-core/a b/acc/mean@1", "val-core/c/reward/mean@4", "val-core/c_blind/reward/mean@4"]
    found = panels([[*names, "val-core/only_blind/acc/mean@1"]])
    assert [panel.key for panel in found] == ["accuracy_a_b", "accuracy_c", "accuracy_gap_c", "accuracy_only_blind"]
    assert found[0].title == "Validation accuracy: a b"


def test_a_plot_has_the_lines_of_each_run():
    names = [["critic/score/mean", "perception/visual_dependency/p95"], ["perception/visual_dependency/mean"], []]
    reward, dependency = panels(names)
    assert [[line.metric for line in lines] for lines in reward.lines] == [["critic/score/mean"], [], []]
    assert [[line.name for line in lines] for lines in dependency.lines] == [["95th percentile"], ["mean"], []]
    assert [line.name for line in dependency.kinds] == ["95th percentile", "mean"]


def test_no_two_plots_have_one_file():
    names = [f"val-core/{source}/acc/mean@1" for source in ("a b", "a.b", "A b", "a b 2", "gap c", "c", "c_blind")]
    keys = [panel.key for panel in panels([names])]
    assert len({key.lower() for key in keys}) == len(keys) == 7
    assert {"accuracy_A_b", "accuracy_a_b_2", "accuracy_a_b_3", "accuracy_a_b_2_2"} <= set(keys)
    assert {"accuracy_gap_c", "accuracy_gap_c_2"} <= set(keys)


def test_phases_and_the_rest_of_a_step():
    steps = [
        (0, {"val": 1.0}),
        (1, {"timing_s/step": 10.0, "timing_s/gen": 4.0, "timing_s/adv": 1.0}),
        (2, {"timing_s/step": 3.0, "timing_s/gen": 4.0}),
        (3, {"timing_s/gen": 4.0}),
    ]
    timed, seconds = phase_seconds(steps)
    assert timed == [1, 2]
    # Phases of an asynchronous trainer may overlap: no negative rest.
    assert seconds == {"gen": [4.0, 4.0], "adv": [1.0, 0.0], OTHER_PHASE: [5.0, 0.0]}
    assert phase_seconds([(1, {"timing_s/step": 2.0})]) == ([1], {OTHER_PHASE: [2.0]})
    assert phase_seconds([]) == ([], {OTHER_PHASE: []})


def test_a_dashed_line_is_not_a_difference():
    assert points([(1, {"a": 1.0})], Line("", "a", dashed=True)) == [(1, 1.0)]


# Records


def one_step(folder):
    write_metrics(folder / "m.jsonl", [step(1, a=1.0)])
    return folder


def test_the_plug_in_writes_what_the_report_reads(tmp_path):
    assert records.SCHEMA.equals(SCHEMA)
    row = plain_record(images=[b"png"])
    records.write_records([records.TokenRecord(**row)], one_step(tmp_path), 1)
    (response,) = load(tmp_path).responses
    assert response.values == {
        "visual_dependency": [0.5, 0.5],
        "weight": [1.0, 1.0],
        "advantage": [0.5, 0.5],
        "entropy": [0.25, 0.25],
    }
    del row["signals"], row["visual_dependency"], row["weight"], row["advantage"]
    assert {name: getattr(response, name) for name in row} == row


def test_older_records_lack_columns(tmp_path):
    write_records(one_step(tmp_path), 1, [plain_record()], OLDER_SCHEMA)
    (response,) = load(tmp_path).responses
    assert (response.prompt_id, response.accuracy, response.ground_truth, response.images) == (None, None, None, [])
    assert sorted(response.values) == ["entropy", "visual_dependency", "weight"]


def test_what_was_not_measured_is_not_there(tmp_path):
    empty = plain_record(visual_dependency=[], weight=[], signals=[], advantage=None, accuracy=None, images=None)
    write_records(one_step(tmp_path), 1, [empty])
    (response,) = load(tmp_path).responses
    assert response.values == {}
    assert response.accuracy is None


def test_records_of_a_folder_with_checkpoints(tmp_path):
    write_records(one_step(tmp_path) / "checkpoints", 1, [plain_record()])
    assert len(load(tmp_path).responses) == 1


def test_lists_of_other_lengths_are_named(tmp_path):
    write_records(one_step(tmp_path), 1, [plain_record(), plain_record(weight=[1.0])])
    with pytest.raises(DataError, match=r"step_000001.parquet, row 1: 1 values of weight for 2 tokens"):
        load(tmp_path)


@pytest.mark.parametrize("column", ["step", "tokens", "reward"])
def test_missing_values_are_named(tmp_path, column):
    write_records(one_step(tmp_path), 1, [plain_record() | {column: None}])
    with pytest.raises(DataError, match=f"row 0: {column} is null"):
        load(tmp_path)


def test_missing_columns_are_named(tmp_path):
    schema = SCHEMA.remove(SCHEMA.get_field_index("tokens"))
    write_records(one_step(tmp_path), 1, [plain_record()], schema)
    with pytest.raises(DataError, match=r"step_000001\.parquet: column tokens is missing"):
        load(tmp_path)


def test_the_newest_file_may_be_unfinished_and_no_other(tmp_path):
    write_records(one_step(tmp_path), 1, [plain_record(1)])
    newest = write_records(tmp_path, 2, [plain_record(2)])
    newest.write_bytes(newest.read_bytes()[:-40])
    run = load(tmp_path)
    assert [response.step for response in run.responses] == [1]
    assert run.notes == [f"{newest} is not complete and is left out"]
    write_records(tmp_path, 3, [plain_record(3)])
    with pytest.raises(DataError, match=r"step_000002\.parquet: not a readable parquet file"):
        load(tmp_path)


def test_a_corrupt_file_is_named(tmp_path):
    path = write_records(one_step(tmp_path), 1, [plain_record(tokens=["x"] * 500)])
    content = bytearray(path.read_bytes())
    content[20 : len(content) // 2] = b"\xff" * (len(content) // 2 - 20)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"step_000001\.parquet: not a readable parquet file"):
        load(tmp_path)


def test_the_number_of_records_is_limited_and_said(tmp_path):
    run = load(write_run(tmp_path, steps=40, every=10, rows=12), limit=9)
    assert [response.step for response in run.responses] == [10, 10, 20, 20, 30, 30, 40, 40]
    assert run.notes == ["8 of 48 recorded responses are shown; --max-records allows more"]


# Selection


def test_prompts_that_come_back_are_shown_first():
    assert choose([["a", "b", "c"], ["d", "b", None]], 2) == [[1], [1]]
    assert choose([[None, None], [None, None]], 2) == [[0], [0]]


def test_steps_are_spread_with_both_ends():
    assert choose([["x"]] * 5, 3) == [[0], [], [0], [], [0]]
    assert choose([["x"]] * 5, 1) == [[], [], [], [], [0]]


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=5), max_size=12),
    st.integers(min_value=1, max_value=30),
)
def test_never_more_than_the_limit_and_all_where_they_fit(prompts, limit):
    chosen = choose(prompts, limit)
    count = sum(map(len, prompts))
    assert sum(map(len, chosen)) <= limit
    assert (sum(map(len, chosen)) == count) == (count <= limit)
    for rows, of_file in zip(chosen, prompts, strict=True):
        assert rows == sorted(set(rows) & set(range(len(of_file))))


def test_lines_of_the_made_up_run_are_those_of_the_logger(tmp_path):
    entries = (write_run(tmp_path, steps=2, every=1) / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line).keys() == {"step", "data"} for line in entries)
