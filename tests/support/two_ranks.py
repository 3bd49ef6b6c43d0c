# SPDX-License-Identifier: Apache-2.0
"""Actor groups of two ranks. Run as `python -m support.two_ranks`: imports once, then forks the ranks of each request.

A request is a line of JSON on standard input: "methods" (the worker's methods, `gradients` of its loss, or `steps` of
`tower_steps.py`), "images" ("all" or "first half": the rows that have images), "family" (whose rows and model; empty:
the committed model's), "overrides", and "out", a folder. Each rank computes its share of the recorded rows, as verl's
dispatch would hand them out, and saves every jagged field of the result there. The answer, a line that starts with
"done", has the exit status of both; what they printed is in `out`.
"""

import json
import os
import sys
import traceback

os.environ["VERL_PLATFORM"] = "cpu"

import torch

from support import batches, family_rows, tiny, tower_steps, workers

WORLD = 2
SETTINGS = {"compute_loss": False, "calculate_entropy": True, "perception_step": 3, "perception_progress": 0.4}


def serve():
    for line in sys.stdin:
        request = json.loads(line)
        port = workers.free_port()
        children = [os.fork() or forked(rank, port, request) for rank in range(WORLD)]
        print("done", json.dumps([os.waitpid(child, 0)[1] for child in children]), flush=True)


def forked(rank, port, request):
    """The life of a rank; does not return."""
    output = os.open(f"{request['out']}/rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        compute(rank, port, **request)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


def compute(rank, port, methods, images, family, overrides, out):
    workers.rendezvous(rank, WORLD, port)
    worker = workers.build(*overrides)
    rows = rows_of(family, images)
    engine = worker.actor.engine
    share, shares = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    mine = rows[share * len(rows) // shares : (share + 1) * len(rows) // shares]
    saved = {}
    for method in methods:
        if method == "gradients":
            gradients = workers.loss_and_gradients(worker, mine, total=len(rows))[1]
            saved |= {name: [gradient] for name, gradient in gradients.items() if rank == 0}
        elif method == "steps":
            saved |= tower_steps.steps(worker, mine, total=len(rows))
        else:
            saved |= results(worker, method, mine)
    torch.save(saved, f"{out}/rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def rows_of(family, images):
    if family:
        found = family_rows.rows(family, family_rows.load(family))
        return family_rows.half_with_images(found) if images == "first half" else found
    model = tiny.model(torch.float32)
    return batches.half_with_images(model) if images == "first half" else batches.rows(model)


def results(worker, method, rows):
    """{field: rows} of what a method of the worker returns; of ranks that split sequences verl collects the first's."""
    engine = worker.actor.engine
    settings = {**SETTINGS, "use_remove_padding": engine.use_remove_padding}
    output = getattr(worker, method)(batches.batch(rows, **settings))
    output = output if engine.is_mp_src_rank_with_outputs() else {}
    jagged = {name: value for name, value in output.items() if torch.is_tensor(value) and value.is_nested}
    return {name: [row.clone() for row in value.unbind()] for name, value in jagged.items()}


if __name__ == "__main__":
    serve()
