# SPDX-License-Identifier: Apache-2.0
"""Whole steps of a worker with a frozen tower: each pass, the update, and how often the tower ran."""

import torch
from verl.utils import tensordict_utils as tu

from support import batches, fsdp1
from verl_ext.models.vision_tower import vision_tower

STEPS = 3
EPOCHS = 2


def steps(worker, rows, total, reference=False):
    """{name: list of tensors} of three steps over the same rows, each of two epochs of two mini-batches.

    `runs` counts, by pass, how many patch rows the tower's first block was given.
    """
    engine = worker.actor.engine
    before = fsdp1.whole_parameters(engine.module)
    found, given = {}, []
    tower = vision_tower(engine.module)
    first = next(module for name, module in tower.named_modules() if name.endswith("blocks.0"))
    handle = first.register_forward_pre_hook(lambda _block, args: given.append(len(args[0])))

    def note(name, values=()):
        found.setdefault(name, []).extend(value.detach().clone() for value in values)
        found.setdefault(f"runs, {name}", []).append(torch.tensor(given))
        given.clear()

    for step in range(1, STEPS + 1):
        settings = {"compute_loss": False, "calculate_entropy": False, "use_remove_padding": engine.use_remove_padding}
        moment = {"perception_step": step, "perception_progress": 0.1 * step}
        output = worker.compute_log_prob(batches.batch(rows, **settings, **moment))
        note("old", rows_of(output, "log_probs"))
        output = worker.compute_ablated_log_prob(batches.batch(rows, **settings, **moment))
        note("ablated", rows_of(output, "ablated_log_prob"))
        if reference:
            output = worker.compute_log_prob(batches.batch(rows, **settings, no_lora_adapter=True))
            note("reference", rows_of(output, "log_probs"))
        worker.update_actor(update_batch(rows, total, engine.use_remove_padding))
        note("update")
    handle.remove()
    after = fsdp1.whole_parameters(engine.module)
    found["parameters"] = list(after.values())
    found["moved"] = [torch.tensor(not before[name].equal(after[name])) for name in after]
    found["of the tower"] = [torch.tensor(".visual." in f".{name}") for name in after]
    found["with gradient"] = [torch.tensor(parameter.requires_grad) for parameter in engine.module.parameters()]
    found["with state"] = [torch.tensor(bool(engine.optimizer.state.get(p))) for p in engine.module.parameters()]
    return found


def rows_of(output, field):
    """Of ranks that split sequences verl collects the first's."""
    return () if output is None or field not in output else output[field].unbind()


def update_batch(rows, total, packed):
    """What verl's trainer hands to `update_actor`: old log-probs and advantages that a row's own tokens decide."""
    generators = [torch.Generator().manual_seed(int(row.input_ids.sum())) for row in rows]
    data = batches.batch(rows, calculate_entropy=True)
    draws = [
        (torch.rand(row.response_length, generator=g), torch.rand(1, generator=g))
        for row, g in zip(rows, generators, strict=True)
    ]
    data["old_log_probs"] = batches.jagged([-5 * old for old, _ in draws])
    data["advantages"] = batches.jagged([(2 * each - 1).expand(len(old)) for old, each in draws])
    tu.assign_non_tensor(
        data,
        use_remove_padding=packed,
        global_batch_size=total // 2,
        mini_batch_size=total // 2,
        epochs=EPOCHS,
        seed=0,
        dataloader_kwargs={"shuffle": False},
        perception_steps_done=0,
        perception_total_steps=10,
    )
    return data
