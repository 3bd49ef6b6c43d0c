# SPDX-License-Identifier: Apache-2.0
"""verl's actor worker in this very process, on gloo, without Ray."""

import inspect
import os
import socket
from contextlib import contextmanager
from functools import cache
from importlib import import_module

import torch
from omegaconf import open_dict
from torch.distributed.tensor import DTensor
from transformers.integrations import flash_attention
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.utils.padding import response_from_nested

from support import batches
from support.configuration import configuration


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def rendezvous(rank=0, world_size=1, port=None):
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK="0",
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port or free_port()),
    )


def build(*overrides, role="actor"):
    """An actor (or "ref"): verl's own, or this package's if the overrides choose a perception method."""
    config = configuration(*overrides)
    cls = ActorRolloutRefWorker
    if "perception" in config:
        from verl_ext.worker.actor_worker import PerceptionActorRolloutRefWorker as cls

        with open_dict(config):
            config.actor_rollout_ref.perception = config.perception
    torch.manual_seed(0)
    worker = cls(config.actor_rollout_ref, role=role)
    worker.init_model()
    return worker


def measured(worker, rows, **settings):
    """{field: values} of everything that the two log-prob passes add to a batch."""
    fields = {}
    for measure in (worker.compute_log_prob, worker.compute_ablated_log_prob):
        output = measure(batches.batch(rows, **{"compute_loss": False, "calculate_entropy": False, **settings}))
        fields.update({} if output is None else dict(output.items()))
    return {name: value for name, value in fields.items() if torch.is_tensor(value) and name != "log_probs"}


def all_measured(worker, rows, **settings):
    """{field: values} of both log-prob passes, verl's own log-probs and entropies over the responses among them."""
    data = {"compute_loss": False, "calculate_entropy": True, **STEP, **settings}
    clean = worker.compute_log_prob(batches.batch(rows, **data))
    mask = batches.batch(rows)["response_mask"]
    own = {name: response_from_nested(clean[name], mask) for name in ("log_probs", "entropy")}
    return {**measured(worker, rows, **data), **own}


STEP = {"perception_step": 3, "perception_progress": 0.4, "perception_steps_done": 2, "perception_total_steps": 10}


def loss_and_gradients(worker, rows, total=None):
    """Loss of the rows and every parameter's gradient, without a step of the optimiser.

    Over several ranks each has its rows of `total`.
    """
    engine = worker.actor.engine
    packed = engine.use_remove_padding
    data = batches.batch(rows, calculate_entropy=True, **STEP)
    # Each row's own, whichever rank has it.
    generators = [torch.Generator().manual_seed(int(row.input_ids.sum())) for row in rows]
    for name, shape in (("old_log_probs", None), ("advantages", 1)):
        draws = [torch.rand(shape or row.response_length, generator=g) for row, g in zip(rows, generators, strict=True)]
        values = [-draw if shape is None else 2 * draw - 1 for draw in draws]
        data[name] = batches.jagged([v.expand(row.response_length) for v, row in zip(values, rows, strict=True)])
    fields = measured(worker, rows, use_remove_padding=packed, **STEP)
    for name, value in as_dispatched(fields, engine.ulysses_parallel_group).items():
        if name != "entropy":
            data[name] = value
    tu.assign_non_tensor(
        data,
        use_dynamic_bsz=False,
        use_fused_kernels=False,
        use_remove_padding=packed,
        micro_batch_size_per_gpu=4,
        global_batch_size=total or len(rows),
    )
    with engine.train_mode():
        engine.optimizer_zero_grad()
        output = engine.forward_backward_batch(data, worker.actor.loss_fn, forward_only=False)
        gradients = {name: whole(p.grad).clone() for name, p in engine.module.named_parameters() if p.grad is not None}
    return sum(output["loss"]), gradients


def whole(gradient):
    """All of a gradient, which FSDP2 shards, and FSDP1 on one rank does not."""
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def as_dispatched(fields, group):
    """The results that verl collects from the first rank of a group that splits sequences, on all of its ranks."""
    if group is None:
        return fields
    plain = [{name: list(value.unbind()) if value.is_nested else value for name, value in fields.items()}]
    torch.distributed.broadcast_object_list(plain, group=group, group_src=0)
    return {name: batches.jagged(value) if isinstance(value, list) else value for name, value in plain[0].items()}


@contextmanager
def process_group():
    """A process group of one rank; verl creates it when the first worker is built."""
    rendezvous()
    with transformers_restored():
        try:
            yield
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


@contextmanager
def transformers_restored():
    """Undo, on leaving, what verl replaces in transformers' classes for the whole process."""
    _originals()
    try:
        yield
    finally:
        restore_transformers()


def restore_transformers():
    """transformers' own functions, as they were when this was first asked for."""
    for owner, name, value in _originals():
        if vars(owner)[name] is not value:
            setattr(owner, name, value)


@cache
def _originals():
    """(owner, name, function) of all that verl may replace."""
    classes = (cls for module in _modelling() for cls in vars(module).values() if inspect.isclass(cls))
    owners = [flash_attention, *classes]
    return [(owner, name, value) for owner in owners for name, value in vars(owner).items() if callable(value)]


def _modelling():
    """transformers' modules of the families that verl replaces parts of."""
    families = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "glm4v")
    return [import_module(f"transformers.models.{name}.modeling_{name}") for name in families]
