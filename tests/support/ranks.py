# SPDX-License-Identifier: Apache-2.0
"""Two ranks of an actor group, each a process of its own; see `two_ranks.py` for what one does."""

import atexit
import json
import os
import subprocess
import sys
from functools import cache

import torch

from support import tiny


@cache
def server():
    """The process that forks the ranks; one for all tests of this process."""
    environment = {**os.environ, "PYTHONPATH": str(tiny.ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "support.two_ranks"]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    atexit.register(process.kill)
    return process


def both(folder, methods, *overrides, images="all", family=""):
    """{field: rows of both ranks, in order} of what the worker's `methods`, separated by commas, return."""
    request = {
        "methods": methods.split(","),
        "images": images,
        "family": family,
        "overrides": [*overrides, "trainer.n_gpus_per_node=2"],
        "out": str(folder),
    }
    process = server()
    print(json.dumps(request), file=process.stdin, flush=True)
    answer = next(line for line in process.stdout if line.startswith("done"))
    logs = [(folder / f"rank{rank}.log").read_text() for rank in range(2)]
    assert json.loads(answer.removeprefix("done")) == [0, 0], "\n".join(logs)
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in range(2))
    return {name: [*first[name], *second.get(name, [])] for name in first}
