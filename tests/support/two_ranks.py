# SPDX-License-Identifier: Apache-2.0
"""One rank of an actor group; run as `python -m support.two_ranks RANK WORLD PORT OUT OVERRIDE...`.

Each rank computes its share of the recorded rows, as verl's dispatch would hand them out, and saves every jagged field
of the result. The environment variable TWO_RANKS_METHOD names the worker's method.
"""

import os
import sys

os.environ["VERL_PLATFORM"] = "cpu"

import torch

from support import batches, tiny, workers

SETTINGS = {"compute_loss": False, "calculate_entropy": True, "perception_step": 3, "perception_progress": 0.4}


def main(rank, world, port, out, *overrides):
    rank, world = int(rank), int(world)
    workers.rendezvous(rank, world, port)
    worker = workers.build(*overrides)
    rows = batches.rows(tiny.model(torch.float32))
    engine = worker.actor.engine
    share, shares = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    share = rows[share * len(rows) // shares : (share + 1) * len(rows) // shares]
    settings = {**SETTINGS, "use_remove_padding": engine.use_remove_padding}
    output = getattr(worker, os.environ["TWO_RANKS_METHOD"])(batches.batch(share, **settings))
    # Of ranks that split sequences between them, verl collects the first's output.
    output = output if engine.is_mp_src_rank_with_outputs() else {}
    jagged = {name: value for name, value in output.items() if torch.is_tensor(value) and value.is_nested}
    saved = {name: [row.clone() for row in value.unbind()] for name, value in jagged.items()}
    torch.save(saved, f"{out}/rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
