# SPDX-License-Identifier: Apache-2.0
"""A real TransferQueue with a recorded rollout batch in it, and verl's trainers without their workers."""

from contextlib import contextmanager

import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import TensorDict
from torch.nested import as_nested_tensor
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

PARTITION = "train"


@contextmanager
def transfer_queue(config):
    ray.init(num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        tq.init(OmegaConf.merge(config.transfer_queue, {"enable": True}))
        yield
        tq.close()
    finally:
        ray.shutdown()


def recorded_rows(lengths, *, per_prompt=2, images=True, seed=0, fields=()):
    """One dict of fields a response, as the agent loop and the log-prob passes leave them.

    `fields` names further signals, which get random positive values.
    """
    generator, further = (torch.Generator().manual_seed(seed + offset) for offset in (0, 1000))
    rows = []
    for index, length in enumerate(lengths):
        old = -torch.rand(length, generator=generator)
        noise = torch.rand(length, generator=generator) if images else 1e-5 * torch.rand(length, generator=generator)
        score = torch.zeros(length)
        score[-1] = float(torch.rand(1, generator=generator) > 0.5)
        rows.append(
            {
                "uid": f"prompt{index // per_prompt}",
                "response_mask": torch.ones(length, dtype=torch.long),
                "rm_scores": score,
                "rollout_log_probs": old.clone(),
                "old_log_probs": old,
                "ablated_log_prob": old - noise,
                "has_image": torch.tensor(images),
                **{name: torch.rand(length, generator=further) for name in fields},
            }
        )
    return rows


def put(rows, *, padding=0, outputs=1):
    """Store `rows` and `padding` rows like verl's own, and return verl's handle of the batch.

    Of `outputs` rows each, one after another, one rollout consists.
    """
    keys = [f"{row['uid']}_{index // outputs}_{index % outputs}" for index, row in enumerate(rows)]
    # Garbage where verl leaves whatever its passes computed; only the mask and the rewards are sure to be zero.
    tensors = {name: value for name, value in rows[0].items() if torch.is_tensor(value) and value.ndim}
    zero = ("response_mask", "rm_scores")
    blank = {
        name: torch.zeros_like(value[:1]) if name in zero else torch.full_like(value[:1], -7)
        for name, value in tensors.items()
    }
    pads = [{**rows[0], "uid": "pad", "has_image": torch.tensor(False), **blank} for _ in range(padding)]
    pads = [{name: pad[name] for name in rows[0]} for pad in pads]
    tags = [{} for _ in rows] + [{"is_padding": True} for _ in pads]
    keys += [f"pad_{index}_0" for index in range(padding)]
    tq.kv_batch_put(keys=keys, partition_id=PARTITION, fields=list_of_dict_to_tensordict(rows + pads), tags=tags)
    return KVBatchMeta(keys=keys, tags=tags, partition_id=PARTITION)


def advantages(meta):
    """{key: advantages of its response}."""
    data = tq.kv_batch_get(keys=meta.keys, partition_id=PARTITION, select_fields=["advantages"])
    return dict(zip(meta.keys, data["advantages"].unbind(), strict=True))


def clear(meta):
    tq.kv_clear(keys=meta.keys, partition_id=PARTITION)


def jagged_fields(**fields):
    return TensorDict(
        {name: as_nested_tensor(values, layout=torch.jagged) for name, values in fields.items()},
        batch_size=len(next(iter(fields.values()))),
    )
