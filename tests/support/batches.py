# SPDX-License-Identifier: Apache-2.0
"""Recorded rollout batches in the form in which verl's workers receive them."""

import torch
from tensordict import TensorDict
from torch.nested import as_nested_tensor, nested_tensor_from_jagged
from verl.utils import tensordict_utils as tu

from support import tiny

QUESTIONS = ["what color is the shape?", "is there a circle?", "what shape is in the image?", "is it blue?"]
RESPONSES = [
    "<think> a red circle </think> \\boxed{red}",
    "<think> a blue rectangle </think> \\boxed{yes}",
    "<think> teal </think> \\boxed{no}",
    "\\boxed{circle}",
]
SIZES = [[(64, 64)], [(84, 84), (64, 112)], [(64, 64)], [(112, 84)]]


def rows(vlm, *, images=True, per_prompt=2):
    """`per_prompt` rows for each of four prompts, lengths and image counts all different."""
    return [
        tiny.row(SIZES[i] if images else [], QUESTIONS[i], RESPONSES[(i + k) % 4], vlm, seed=11 * i)
        for i in range(4)
        for k in range(per_prompt)
    ]


def half_with_images(vlm):
    """Eight rows of which the first four have images."""
    return [*rows(vlm)[:4], *rows(vlm, images=False)[4:]]


def jagged(tensors):
    return as_nested_tensor([t.contiguous() for t in tensors], layout=torch.jagged)


def batch(rows, *, seed=0, **settings):
    """A batch with every field that the log-prob passes and the update read.

    Advantages and old log-probs are random but fixed by `seed`; `settings` are stored as non-tensor fields.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = [row.response_length for row in rows]
    masks = [torch.ones(n, dtype=torch.long) for n in lengths]
    offsets = torch.tensor([0, *torch.tensor([len(r.input_ids) for r in rows]).cumsum(0).tolist()])
    fields = {
        "input_ids": jagged([row.input_ids for row in rows]),
        "position_ids": nested_tensor_from_jagged(
            torch.cat([row.position_ids for row in rows], dim=1), offsets, jagged_dim=2
        ),
        "prompts": jagged([row.input_ids[: -row.response_length] for row in rows]),
        "responses": jagged([row.input_ids[-row.response_length :] for row in rows]),
        "response_mask": jagged(masks),
        "loss_mask": jagged(masks),
        "old_log_probs": jagged([-torch.rand(n, generator=generator) for n in lengths]),
        "advantages": jagged([torch.randn(1, generator=generator).expand(n) for n in lengths]),
    }
    data = TensorDict(fields, batch_size=len(rows))
    tu.assign_non_tensor_stack(data, "multi_modal_inputs", [dict(row.inputs) for row in rows])
    tu.assign_non_tensor(data, temperature=1.0, global_token_num=None, **settings)
    return data
