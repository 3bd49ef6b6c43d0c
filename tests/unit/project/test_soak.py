# SPDX-License-Identifier: Apache-2.0
"""The soak's figures on samples whose slopes are known, and what it takes for its own."""

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.tiny import ROOT


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """Scripts are not in a package; they find each other by the folder that they are in."""
    sys.path.insert(0, str(ROOT / "scripts"))
    yield
    sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="module")
def reports(scripts):
    return importlib.import_module("soak_report")


@pytest.fixture(scope="module")
def watching(scripts):
    return importlib.import_module("soak_samples")


def held(megabytes, fds=10):
    return {"uss_mb": megabytes, "pss_mb": megabytes, "fds": fds, "threads": 4, "processes": 1}


def sample(step, megabytes, attempt="a", **more):
    sizes = {"run_mb": 1.0, "ray_session_mb": 2.0, "shared_memory_files": 3, "temporary_files": 4}
    return {"attempt": attempt, "step": step, "roles": {"driver": held(megabytes)}, **sizes, **more}


@pytest.mark.parametrize("growth", [0.0, 0.02, -0.05, 1.0])
@pytest.mark.parametrize("noise", [0.5, 5.0])
def test_a_known_slope_lies_in_its_interval(reports, growth, noise):
    """In at least 90 of 100 draws, of an interval of 95 %."""
    steps = np.repeat(np.arange(500), 2)
    inside = 0
    for seed in range(100):
        values = 900 + growth * steps + np.random.default_rng(seed).normal(0, noise, len(steps))
        line = reports.slope(steps, values)
        inside += abs(line.per_100_steps - 100 * growth) <= line.half_width
    assert inside >= 90


def test_a_line_without_noise(reports):
    line = reports.slope(range(100), [7 + 0.5 * step for step in range(100)])
    assert line.per_100_steps == pytest.approx(50)
    assert line.half_width == pytest.approx(0, abs=1e-6)
    assert (line.first, line.last) == (8.0, 55.5)
    assert not line.is_flat
    assert reports.slope(range(100), [3.0] * 100).is_flat
    assert reports.slope(range(100), [1000 + 0.09 * step for step in range(100)]).is_flat
    assert not reports.slope(range(100), [1000 + 0.11 * step for step in range(100)]).is_flat


@pytest.mark.parametrize("steps", [[], [1, 2], [5, 5, 5, 5]])
def test_too_few_samples_have_no_slope(reports, steps):
    assert reports.slope(steps, [1.0] * len(steps)) is None


def test_the_warm_up_and_other_attempts_are_left_out(reports):
    """A first attempt that was stopped, and one that starts empty, fills up before it is flat, and ends."""
    first = [sample(step, 100 + step) for step in range(20)]
    second = [sample(step, min(step - 20, 50) * 10, attempt="b") for step in range(20, 501)]
    ending = [{**sample(500, 0, attempt="b"), "roles": {}}]
    used = reports.settled(first + second + ending, 500)
    assert {one["attempt"] for one in used} == {"b"}
    assert (used[0]["step"], used[-1]["step"]) == (70, 499)
    assert reports.by_role(used, "uss_mb")["driver"].is_flat


def test_figures_and_their_text(reports):
    steps = [
        (step, {reports.CORRELATION: 1.0 - (step == 30) * 0.01, reports.SECONDS: 9.0 if step <= 20 else 12.0})
        for step in range(1, 101)
    ]
    samples = [sample(step, 500 + 2 * step) for step in range(1, 101)]
    end = {"processes": 0, "strangers_in_shared_memory": 5, "temporary": {"ckpt_*.lock": {"count": 2, "roles": []}}}
    end["shared_memory"] = {"psm_*": {"count": 1, "roles": ["vLLM worker"]}}
    found = reports.figures(samples, steps, [end])
    assert found["memory_mb"]["driver"]["per_100_steps"] == pytest.approx(200)
    assert found["fds"]["driver"]["per_100_steps"] == 0
    assert found["lowest_correlation"] == 0.99
    assert found["seconds_a_step"] == {"first_fifth": pytest.approx(9.0, abs=0.2), "last_fifth": 12.0}
    text = reports.markdown(found)
    assert "| driver | 1 | 526.0 | 695.0 | +200.00 ± 0.00 | +200.00 ± 0.00 | no | 10 to 10 | 4 to 4 |" in text
    assert "0 of the 1 kinds of process that train are flat; not flat: driver." in text
    assert "no process of the run had open | 5 |" in text
    assert "| 1 | `/dev/shm/psm_*` | 1 | vLLM worker |" in text
    assert "| 1 | `ckpt_*.lock` | 2 | - |" in text
    assert "lowest 0.990000" in text


def test_a_process_seen_twice_or_not_at_all_for_a_moment_does_not_change_their_number(reports):
    samples = [sample(step, 500) for step in range(1, 6)]
    samples[-1]["roles"] = {}
    samples[0]["roles"]["driver"]["processes"] = 2
    assert reports.processes(samples) == {"driver": 1}
    assert reports.processes([]) == {}


def test_the_page_has_the_figures_of_the_soak(reports):
    found = json.loads((ROOT / "docs/soak.json").read_text())
    page = (ROOT / "docs/reliability.md").read_text()
    (table,) = [part for part in reports.markdown(found).split("\n\n") if part.startswith("| role ")]
    assert table in page
    assert found["steps"] == 500
    assert f"the lowest correlation of a step is {found['lowest_correlation']:.10f}" in page


def test_what_fills_up_in_the_first_half_is_flat(reports):
    steps = [(step, {reports.SECONDS: 9.0}) for step in range(1, 101)]
    found = reports.figures([sample(step, 500 + min(step, 50)) for step in range(1, 101)], steps, [])
    assert not found["memory_mb"]["driver"]["is_flat"]
    assert found["memory_mb_later"]["driver"]["is_flat"]
    assert "1 of the 1 kinds of process that train are flat." in reports.markdown(found)


def test_a_soak_that_was_stopped_at_once_has_a_report(reports):
    assert "0 steps in 0 attempt(s)" in reports.markdown(reports.figures([], [], []))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python", "-m", "verl.trainer.main_ppo", "+perception=pgpo"], "driver"),
        (["ray::TaskRunnerV1.run"], "task runner"),
        (["ray::PerceptionAgentLoopWorker"], "agent loop"),
        (["VLLM::EngineCore"], "vLLM engine core"),
        (["/x/raylet/raylet", "--raylet_socket_name=/tmp/ray"], "raylet"),
        (["python", "dashboard.py"], "Ray's helpers"),
    ],
)
def test_roles(watching, command, expected):
    assert watching.role(command) == expected


def test_patterns(watching):
    names = ["psm_001f70ee", "00363fee-0c97-47fc-a80e-a788745154e2", "ckpt_a1b2c3d4.lock", "sem.mp-zxhzv1u_"]
    assert [watching.pattern(name) for name in names] == ["psm_*", "*", "ckpt_*.lock", "sem.mp-*"]


def test_only_marked_processes_and_their_children_are_watched(watching, tmp_path):
    """Of a child that has lost its mark, but not of a stranger."""
    (tmp_path / "a").write_bytes(b"x" * 2**20)
    watcher = watching.Watcher("mark-of-this-test", tmp_path, tmp_path)
    loops = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], env={})"
    environment = {**os.environ, watching.MARK: watcher.mark}
    marked = subprocess.Popen([sys.executable, "-c", loops], env=environment, stdin=subprocess.PIPE)
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        wait_for(lambda: len(watcher.processes()) == 2)
        assert stranger.pid not in {process.pid for process in watcher.processes()}
        taken = watcher.sample()
        assert taken["roles"]["Ray's helpers"]["processes"] == 2
        assert taken["roles"]["Ray's helpers"]["uss_mb"] > 1
        assert taken["run_mb"] == 1.0
        assert taken["temporary_files"] == 1
    finally:
        for process in (marked, stranger):
            process.stdin.close()
            process.wait(timeout=60)
    assert watcher.processes() == []


def wait_for(condition, seconds=60):
    import time

    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline
        time.sleep(0.1)
