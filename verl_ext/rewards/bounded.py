# SPDX-License-Identifier: Apache-2.0
"""Comparing formulas in bounded time, from any thread.

verl calls reward functions in threads, where the time limits of math-verify do not work, since signals reach the main
thread alone. Here each comparison runs in a worker process that dies when its processor time is used up. Processor
time, not wall-clock time, so that a busy machine does not change rewards.

The workers are programs of their own rather than children of multiprocessing: they inherit nothing from a process
that runs Ray and threads, do not import its main module again, and end by themselves when it is gone, since their
socket then closes.
"""

import atexit
import json
import os
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from queue import LifoQueue

from verl_ext.rewards.options import Options

WORKERS = 2
"""Most worker processes of one process; the second is started when two threads compare at once."""
REQUESTS = 5_000
"""Requests after which a worker is replaced, so that its caches do not grow for ever."""
START_SECONDS = 120.0
"""Wall-clock seconds within which a worker must have started."""
WAIT_SECONDS = 20.0
"""Wall-clock seconds, on top of ten times the processor time, after which a worker counts as stuck."""


class Worker:
    """One worker process, started when it is needed and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._requests = 0

    def same(self, request: dict[str, str | float], seconds: float) -> bool | None:
        """The verdict, or None when it takes more than `seconds` of processor time or ends the process."""
        connection = self._connection or self._start()
        verdict = None
        try:
            with suppress(EOFError, OSError):
                connection.send_bytes(json.dumps({**request, "seconds": seconds}).encode())
                verdict = self._received(10.0 * seconds + WAIT_SECONDS)
        finally:
            self._requests += 1
            if verdict is None or self._requests >= REQUESTS:
                self.stop()
        return None if verdict is None else verdict == b"1"

    def stop(self) -> None:
        """End the process."""
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()
        self._process = self._connection = None

    def _start(self) -> Connection:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "verl_ext.rewards.worker", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._requests = 0
        self._await_start()
        return self._connection

    def _await_start(self) -> None:
        started = None
        try:
            with suppress(EOFError, OSError):
                started = self._received(START_SECONDS)
        finally:
            if started is None:
                self.stop()
        if started is None:
            raise RuntimeError(
                "the process that compares formulas did not start; its error stands above this, or comes with "
                f"`{sys.executable} -c 'import math_verify'`"
            )

    def _received(self, seconds: float) -> bytes | None:
        """The next message of the process, or None when there is none within `seconds`."""
        assert self._connection is not None
        return self._connection.recv_bytes() if self._connection.poll(seconds) else None


class Pool:
    """Workers that are idle, the one used last on top, so that a single thread needs one."""

    def __init__(self) -> None:
        self._workers = [Worker() for _ in range(WORKERS)]
        self._idle: LifoQueue[Worker] = LifoQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def same(self, request: dict[str, str | float], seconds: float) -> bool | None:
        """As `Worker.same`, by the next worker that is idle."""
        worker = self._idle.get()
        try:
            return worker.same(request, seconds)
        finally:
            self._idle.put(worker)

    def stop(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.stop()


_pool = Pool()


def same_formula(answer: str, truth: str, options: Options) -> bool | None:
    """Whether math-verify takes `answer` for the same as `truth`, both LaTeX without dollar signs.

    Two numbers are also the same within the tolerances of `options`. None stands for no verdict: more processor time
    than ``options.seconds``, or the worker died. Raises ``RuntimeError`` when no worker can be started.
    """
    request: dict[str, str | float] = {
        "truth": truth,
        "answer": answer,
        "relative": options.relative_tolerance,
        "absolute": options.absolute_tolerance,
    }
    return _pool.same(request, options.seconds)


def stop_workers() -> None:
    """End the worker processes of this process; the next comparison starts new ones."""
    _pool.stop()


def _forget_workers() -> None:
    """A forked process leaves the workers to its parent."""
    global _pool
    _pool = Pool()


os.register_at_fork(after_in_child=_forget_workers)
atexit.register(stop_workers)
