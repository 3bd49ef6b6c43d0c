# SPDX-License-Identifier: Apache-2.0
"""Formulas compared by worker processes: right, bounded, from any thread, and without a process left behind."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from verl_ext.rewards.bounded import WORKERS, same_formula, stop_workers
from verl_ext.rewards.options import Options

TOWER = "9^{9^{9^{9}}}"


def same(answer, truth, **options):
    """The verdict of a worker of this process."""
    return same_formula(answer, truth, Options(**options))


def workers(process=None):
    """The worker processes of a process, of this one by default."""
    children = (process or psutil.Process()).children(recursive=True)
    return [child for child in children if "verl_ext.rewards.worker" in child.cmdline()]


def program(code):
    """Run `code` in a Python of its own, and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, -9), done.stderr
    return done.stdout.split()


def gone(pid, seconds=20.0):
    """Whether a process ends within some time."""
    deadline = time.monotonic() + seconds
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    return True


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac{1}{2}", "1/2", True),
        (r"4\sqrt{2}", r"\sqrt{32}", True),
        (r"4 \sqrt { 2 }", r"4\sqrt2", True),
        (r"(x+1)^2", "x^2+2x+1", True),
        (r"\{1,2\}", r"\{2,1\}", True),
        ("[0,1)", "[0,1)", True),
        ("[0,1)", "[0,1]", False),
        ("(1,2)", "(2,1)", False),
        ("x=5", "5", True),
        (r"\frac{\pi}{2}", r"90", False),
        ("12", r"\frac{25}{2}", False),
        ("x", "y", False),
        (r"\frac{1}{2}", r"\frac{", False),
        (r"\frac{1}{2}", r"word \frac{1}{2}", False),
        (r"\frac{1}{2}", r"\frac{1}{2} @ \frac{1}{3}", False),
        (r"\frac{1}{2}", r"7 \ne \# $\frac{1}{2}$", False),
        (r"(-\infty,2)", "x<2", True),
        (r"\pm 3", r"\{3,-3\}", True),
    ],
)
def test_formulas(truth, answer, expected):
    assert same(answer, truth) is expected


def test_tolerances():
    assert same("5.66", r"4\sqrt{2}") is False
    assert same("5.66", r"4\sqrt{2}", relative_tolerance=1e-3) is True
    assert same("5.66", r"4\sqrt{2}", absolute_tolerance=1e-2) is True
    assert same("y", "x", relative_tolerance=0.5) is False


def test_a_comparison_that_takes_too_long_has_no_verdict_and_the_next_one_has():
    began = time.monotonic()
    assert same(TOWER, "1", seconds=0.3) is None
    assert time.monotonic() - began < 30
    assert same("0.5", r"\frac{1}{2}") is True


def test_time_is_the_process_own_so_that_waiting_does_not_count():
    stop_workers()
    assert same("1.0", "1") is True
    (worker,) = workers()
    worker.suspend()
    with ThreadPoolExecutor(1) as thread:
        verdict = thread.submit(same, "0.5", r"\frac{1}{2}", seconds=1.0)
        time.sleep(2.0)
        worker.resume()
        assert verdict.result() is True


def test_a_process_that_makes_no_progress_is_ended(monkeypatch):
    stop_workers()
    assert same("1.0", "1") is True
    monkeypatch.setattr("verl_ext.rewards.bounded.WAIT_SECONDS", 0.5)
    (worker,) = workers()
    worker.suspend()
    while worker.status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    assert same("0.5", r"\frac{1}{2}", seconds=0.01) is None
    assert gone(worker.pid)


def test_threads_share_the_workers():
    def compare(number):
        fraction = rf"\frac{{{number}}}{{4}}"
        return same(f"{number}/4", fraction), same(f"{number}/5", fraction)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(compare, range(1, 40, 2))) == {(True, False)}
    assert 1 <= len(workers()) <= WORKERS


def test_a_worker_is_replaced_after_many_requests(monkeypatch):
    stop_workers()
    monkeypatch.setattr("verl_ext.rewards.bounded.REQUESTS", 2)
    running = [(same("0.5", r"\frac{1}{2}"), len(workers())) for _ in range(4)]
    assert running == [(True, 1), (True, 0), (True, 1), (True, 0)]


def test_no_process_is_left_behind():
    stop_workers()
    before = psutil.Process().num_fds()
    for _ in range(3):
        assert same(TOWER, "1", seconds=0.1) is None
    assert len(workers()) <= WORKERS
    stop_workers()
    assert workers() == []
    assert psutil.Process().num_fds() <= before


@pytest.mark.parametrize("end", ["pass", "import os; os._exit(0)", "import os; os.kill(os.getpid(), 9)"])
def test_workers_end_with_their_process(end):
    code = f"""
import psutil
from verl_ext.rewards.bounded import Options, same_formula
same_formula("1", "1.0", Options())
print(*[child.pid for child in psutil.Process().children()], flush=True)
{end}
"""
    (worker,) = program(code)
    assert gone(int(worker))


def test_a_forked_process_has_workers_of_its_own():
    code = r"""
import os, psutil
from verl_ext.rewards.bounded import Options, same_formula
same = lambda: same_formula(r"\frac{1}{2}", "0.5", Options())
assert same() is True
child = os.fork()
assert same() is True
print(len(psutil.Process().children()) - bool(child), flush=True)
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert same() is True
"""
    assert program(code) == ["1", "1"]


def test_what_a_worker_cannot_do():
    code = r"""
import os, socket, subprocess
from verl_ext.rewards import worker
worker._confine()
def refused(attempt):
    try:
        attempt()
    except (PermissionError, MemoryError) as error:
        return type(error).__name__
print(
    refused(lambda: os.system("true")),
    refused(lambda: subprocess.run(["true"])),
    refused(lambda: os.fork()),
    refused(lambda: socket.socket().connect(("127.0.0.1", 9))),
    refused(lambda: bytearray(2 * worker.MEMORY_BYTES)),
)
"""
    assert program(code) == ["PermissionError"] * 4 + ["MemoryError"]


def test_a_worker_that_does_not_start_is_an_error(monkeypatch):
    stop_workers()
    monkeypatch.setattr(sys, "executable", os.path.realpath("/bin/false"))
    with pytest.raises(RuntimeError, match="did not start"):
        same("1.0", "1")
