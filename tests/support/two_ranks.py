# SPDX-License-Identifier: Apache-2.0
"""One rank of an actor group; run as `python -m support.two_ranks RANK WORLD PORT OUT OVERRIDE...`.

Each rank computes its share of the recorded rows, as verl's dispatch would hand them out, and saves the result.
"""

import os
import sys

os.environ["VERL_PLATFORM"] = "cpu"

import torch

from support import batches, tiny, workers


def main(rank, world, port, out, *overrides):
    rank, world = int(rank), int(world)
    workers.rendezvous(rank, world, port)
    worker = workers.build(*overrides)
    rows = batches.rows(tiny.model(torch.float32))
    share = rows[rank * len(rows) // world : (rank + 1) * len(rows) // world]
    data = batches.batch(share, compute_loss=False, calculate_entropy=False, perception_step=3)
    output = worker.compute_ablated_log_prob(data)
    torch.save([t.clone() for t in output["ablated_log_prob"].unbind()], f"{out}/rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
