# SPDX-License-Identifier: Apache-2.0
"""One rank of an actor group; run as `python -m support.two_ranks RANK WORLD PORT OUT OVERRIDE...`.

Each rank computes its share of the recorded rows, as verl's dispatch would hand them out, and saves every jagged field
of the result. The environment variable TWO_RANKS_METHODS names the worker's methods, or `gradients` of its loss;
TWO_RANKS_IMAGES is "all" or "first half", the rows that have images.
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
    if os.environ["TWO_RANKS_IMAGES"] == "first half":
        rows = batches.half_with_images(tiny.model(torch.float32))
    engine = worker.actor.engine
    share, shares = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    mine = rows[share * len(rows) // shares : (share + 1) * len(rows) // shares]
    saved = {}
    for method in os.environ["TWO_RANKS_METHODS"].split(","):
        if method == "gradients":
            gradients = workers.loss_and_gradients(worker, mine, total=len(rows))[1]
            saved |= {name: [gradient] for name, gradient in gradients.items() if rank == 0}
        else:
            saved |= results(worker, method, mine)
    torch.save(saved, f"{out}/rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def results(worker, method, rows):
    """{field: rows} of what a method of the worker returns; of ranks that split sequences verl collects the first's."""
    engine = worker.actor.engine
    settings = {**SETTINGS, "use_remove_padding": engine.use_remove_padding}
    output = getattr(worker, method)(batches.batch(rows, **settings))
    output = output if engine.is_mp_src_rank_with_outputs() else {}
    jagged = {name: value for name, value in output.items() if torch.is_tensor(value) and value.is_nested}
    return {name: [row.clone() for row in value.unbind()] for name, value in jagged.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
