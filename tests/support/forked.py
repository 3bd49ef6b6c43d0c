# SPDX-License-Identifier: Apache-2.0
"""Ranks of one process group, forked from a process that has already imported what they need."""

import json
import os
import traceback

import torch


def run(main, world, out):
    """Call `main(rank)` in `world` processes joined by gloo; write what it returns as JSON to `out`/rank<n>.json.

    Returns:
        Whether all came through; a rank that fails writes its traceback instead.
    """
    children = [os.fork() or _child(main, rank, world, out) for rank in range(world)]
    return all([os.waitpid(child, 0)[1] == 0 for child in children])


def _child(main, rank, world, out):
    torch.set_num_threads(1)
    failed = 1
    try:
        # A file, because ranks of other tests may look for free ports at the same time.
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=world
        )
        result = main(rank)
        torch.distributed.barrier()
        failed = 0
    except BaseException:
        result = {"traceback": traceback.format_exc()}
    (out / f"rank{rank}.json").write_text(json.dumps(result))
    os._exit(failed)
