# SPDX-License-Identifier: Apache-2.0
"""Several ranks of an actor group, each a process of its own; see `two_ranks.py` for what one does."""

import os
import subprocess
import sys

import torch

from support import tiny, workers


def both(folder, methods, *overrides, images="all"):
    """{field: rows of both ranks, in order} of what the worker's `methods`, separated by commas, return."""
    port = str(workers.free_port())
    environment = {
        **os.environ,
        "PYTHONPATH": str(tiny.ROOT / "tests"),
        "OMP_NUM_THREADS": "1",
        "TWO_RANKS_METHODS": methods,
        "TWO_RANKS_IMAGES": images,
    }
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "support.two_ranks",
                str(rank),
                "2",
                port,
                str(folder),
                *overrides,
                "trainer.n_gpus_per_node=2",
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in range(2))
    return {name: [*first[name], *second.get(name, [])] for name in first}
