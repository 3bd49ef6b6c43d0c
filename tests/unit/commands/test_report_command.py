# SPDX-License-Identifier: Apache-2.0
"""`verl-ext report` as it is called."""

import subprocess
import sys

import pytest
from click.testing import CliRunner
from support.synthetic_run import write_metrics, write_records, write_run

from verl_ext import cli


@pytest.fixture
def call():
    return lambda *words: CliRunner().invoke(cli.main, ["report", *map(str, words)])


def test_the_page_and_the_figures_of_one_run(tmp_path, call):
    run = write_run(tmp_path / "run", steps=4, every=2)
    result = call(run)
    assert result.exit_code == 0, result.output
    written = [run / "report" / "report.html", run / "report" / "accuracy.png", run / "report" / "token_heat_map.png"]
    assert set(map(str, written)) <= set(result.stdout.splitlines())
    assert all(path.stat().st_size > 1000 for path in written)


def test_several_runs_without_figures(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/same", "b/same"):
        write_metrics(tmp_path / name / "m.jsonl", [(1, {"critic/score/mean": 1.0})])
    result = call("a/same", "b/same", "--no-png")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["report/report.html"]
    assert "<title>a/same, b/same</title>" in (tmp_path / "report/report.html").read_text()


def test_labels_and_metrics_and_output(tmp_path, call):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_metrics(tmp_path / f"{name}.jsonl", [(1, {"critic/score/mean": 1.0})])
    names = [f"--label={name}" for name in ("GRPO", "PGPO")]
    files = [f"--metrics={tmp_path / name}.jsonl" for name in ("a", "b")]
    result = call(tmp_path / "a", tmp_path / "b", *names, *files, "--output", tmp_path / "out", "--no-png")
    assert result.exit_code == 0, result.output
    assert "<title>GRPO, PGPO</title>" in (tmp_path / "out/report.html").read_text()


def test_what_is_left_out_is_said(tmp_path, call):
    run = write_run(tmp_path / "run", steps=4, every=2, rows=8)
    result = call(run, "--max-records", 2, "--no-png")
    assert "run: 2 of 16 recorded responses are shown; --max-records allows more" in result.stderr


def broken_records(folder):
    write_metrics(folder / "m.jsonl", [(1, {"a": 1.0})])
    write_records(folder, 1, []).write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("prepare", "words", "message"),
    [
        (lambda folder: None, [], "VERL_FILE_LOGGER_PATH"),
        (broken_records, [], "step_000001.parquet"),
        (write_run, ["--label", "a", "--label", "b"], "--label=['a', 'b']: give one for each of the 1 runs"),
        (write_run, ["--metrics", "missing.jsonl"], "missing.jsonl: no such file"),
    ],
    ids=["no metrics", "broken records", "labels", "metrics"],
)
def test_errors_are_one_line(tmp_path, call, prepare, words, message):
    prepare(tmp_path)
    result = call(tmp_path, *words, "--no-png")
    assert result.exit_code == 1
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    assert not list(tmp_path.rglob("report.html"))


def test_an_output_that_cannot_be_written_is_one_line(tmp_path, call):
    (tmp_path / "file").touch()
    result = call(write_run(tmp_path / "run", steps=1), "--no-png", "--output", tmp_path / "file" / "folder")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"Error: Not a directory: {tmp_path / 'file' / 'folder'}"


def test_several_runs_need_names_and_metrics_of_their_own(tmp_path, call):
    write_run(tmp_path, steps=1)
    assert "give every run a name of its own" in call(tmp_path, tmp_path).stderr
    assert "give one for each of the 2 runs" in call(tmp_path, tmp_path.parent, "--metrics", "x").stderr
    assert call(tmp_path, "--max-records", 0).exit_code == 2


def test_help_is_quick_and_has_an_example(call):
    assert "Example: verl-ext report" in call("--help").stdout
    code = "import sys, verl_ext.commands.report; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pyarrow", "matplotlib", "plotly", "jinja2", "torch"} & set(modules)
