# SPDX-License-Identifier: Apache-2.0
"""verl's actor worker in this very process, on gloo, without Ray."""

import os
import socket
from contextlib import contextmanager

import torch
from omegaconf import open_dict
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from verl.workers.engine_workers import ActorRolloutRefWorker

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


def build(*overrides):
    """An actor: verl's own, or this package's if the overrides choose a perception method."""
    config = configuration(*overrides)
    cls = ActorRolloutRefWorker
    if "perception" in config:
        from verl_ext.integration.worker import PerceptionActorRolloutRefWorker as cls

        with open_dict(config):
            config.actor_rollout_ref.perception = config.perception
    torch.manual_seed(0)
    worker = cls(config.actor_rollout_ref, role="actor")
    worker.init_model()
    return worker


def measured(worker, rows, **settings):
    """{field: values} of everything that the two log-prob passes add to a batch."""
    fields = {}
    for measure in (worker.compute_log_prob, worker.compute_ablated_log_prob):
        output = measure(batches.batch(rows, **{"compute_loss": False, "calculate_entropy": False, **settings}))
        fields.update({} if output is None else dict(output.items()))
    return {name: value for name, value in fields.items() if torch.is_tensor(value) and name != "log_probs"}


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
    names = ("Qwen2_5_VLModel", "Qwen2_5_VLAttention", "Qwen2_5_VLForConditionalGeneration")
    before = {getattr(modeling_qwen2_5_vl, name): getattr(modeling_qwen2_5_vl, name).forward for name in names}
    try:
        yield
    finally:
        for cls, forward in before.items():
            cls.forward = forward
