# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run: options are understood, and tiny sizes give whole tables. What they measure is not tested."""

import json
import os
import re
import runpy
import subprocess
import sys

import pytest
from support.tiny import ROOT

pytestmark = pytest.mark.slow

FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text())
TINY = ["--layers=1", "--text=8", "--rounds=1"]


def run(script, *arguments):
    """What it printed; status 1 only says that a limit, meant for real sizes, is broken."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, FOLDER / script, *arguments], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode in (0, 1), done.stderr[-4000:]
    assert "Traceback" not in done.stderr, done.stderr[-4000:]
    return done.stdout


def tables(output):
    """The tables printed, each as rows of cells, the header first."""
    for block in re.findall(r"(?:^\|.*\n)+", output, re.MULTILINE):
        header, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines())
        yield [header, *rows]


def is_ratio(cell):
    return re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)", cell) is not None


def test_all_are_here():
    assert SCRIPTS == [
        "flops.py",
        "frozen_tower.py",
        "groups.py",
        "growth.py",
        "passes.py",
        "similarity.py",
        "steps.py",
        "weights.py",
    ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script, monkeypatch, capsys):
    # In this process: what most of them import takes longer than everything else.
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as exited:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    assert exited.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_passes():
    kinds = ["drop_vision", "random_patch"]
    arguments = ["--image", "0", "8", "--response=4", "--rows=1", "--similarity-rounds=1", "--kinds", *kinds]
    all_logits, response_logits, similarity = tables(run("passes.py", *arguments, *TINY))
    for header, *rows in (all_logits, response_logits):
        assert header[-2:] == kinds
        assert [row[:2] for row in rows] == [["0", "4"], ["8", "4"]]
        assert all(is_ratio(cell) for row in rows for cell in row[3:])
    assert [row[:2] for row in similarity[1:]] == [
        [name, logits] for logits in ("all", "response") for name in ("off again", "pepo", "vgpo")
    ]


def test_similarity():
    output = run("similarity.py", "--image=64", "--response=32", "--width=64", "--layers=3", "--rounds=1", "--text=8")
    figures, limits = tables(output)
    assert [row[0] for row in figures[1:]] == ["ours", "reference", "reference over ours"]
    assert is_ratio(figures[-1][1])
    assert len(limits) == 3


def test_growth():
    axes = ["--rows=1", "--response=4", "--images=2", "--ranks", "1", "2", "--image=4"]
    (table,) = tables(run("growth.py", *axes, *TINY))
    assert [row[:4] for row in table[1:]] == [
        ["**1**", "4", "2", "1"],
        ["1", "**4**", "2", "1"],
        ["1", "4", "**2**", "1"],
        ["1", "4", "2", "**1**"],
        ["1", "4", "2", "**2**"],
    ]
    assert all(len(row) == 9 for row in table)


def test_groups(tmp_path):
    written = tmp_path / "seconds.json"
    sizes = ["--responses=2", "--image=4", "--response=4", f"--json={written}"]
    (table,) = tables(run("groups.py", "--methods", "pgpo", "papo_g", *sizes, *TINY))
    passes = {"pgpo": ["old_log_prob", "ablated_log_prob", "update_actor", "step"]}
    passes["papo_g"] = ["old_log_prob", "ref_log_prob", *passes["pgpo"][1:]]
    assert [row[:2] for row in table[1:]] == [[method, name] for method, names in passes.items() for name in names]
    assert all(is_ratio(cell) for row in table[1:] for cell in row[3:])
    seconds = {(row["method"], row["sharing"], row["pass"]): row["seconds"] for row in json.loads(written.read_text())}
    own = [seconds["pgpo", "shared", name][0] for name in passes["pgpo"]]
    assert own[-1] == pytest.approx(sum(own[:-1]))


@pytest.mark.more_runs
def test_groups_never_slower():
    sizes = ["--responses=2", "--image=4", "--response=4", "--methods=pgpo", "--never-slower"]
    figures, limits = tables(run("groups.py", *sizes, *TINY))
    assert [row[:4] for row in figures[1:]] == [
        ["1", "4", "4", "pgpo"],
        ["2", "16", "4", "pgpo"],
        ["2", "4", "2048", "pgpo"],
    ]
    assert len(limits) == 4


def test_flops():
    sizes = ["--models=7b", "--responses", "1", "2", "--image=16", "--text=8", "--response=4", "--layers=1"]
    (table,) = tables(run("flops.py", *sizes))
    steps = {(row[1], row[2]): float(row[6]) for row in table[1:]}
    assert [row[:2] for row in table[1:]] == [["7b", count] for count in "111222"]
    # Rows without sharing have nothing in common, and a row alone has nothing to share.
    assert steps["2", "vanilla verl"] == pytest.approx(2 * steps["1", "vanilla verl"], rel=1e-3)
    assert steps["2", "PGPO, unshared"] == pytest.approx(2 * steps["1", "PGPO, unshared"], rel=1e-3)
    assert steps["1", "PGPO, shared"] == steps["1", "PGPO, unshared"]
    assert steps["2", "PGPO, shared"] < steps["2", "PGPO, unshared"]
