# SPDX-License-Identifier: Apache-2.0
"""The forward pass over the image-ablated view, inside verl's own engine.

Each micro-batch is ablated just before the engine runs it, so the split into micro-batches is the clean pass's own
(log-probabilities differ slightly between splits) and no second set of images exists beyond one micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from tensordict import TensorDict
from verl.workers.utils.padding import response_from_nested

from verl_ext.integration.ablated_batch import Ablation, ModelFacts
from verl_ext.integration.image_tokens import count_vision_tokens
from verl_ext.integration.vision_tower import skip_vision_tower
from verl_ext.methods.base import ABLATED_LOG_PROB

HAS_IMAGE = "has_image"

INPUT_FIELDS = ("input_ids", "position_ids", "prompts", "responses", "response_mask", "loss_mask")
"""All that the ablated pass fetches: the images are those that the clean pass has just fetched."""


@contextmanager
def ablated_forward(engine: Any, ablation: Ablation, step: int) -> Iterator[None]:
    """While open, `engine` (one of verl's FSDP engines) sees the ablated view of every micro-batch."""
    clean_forward_step = engine.forward_step

    def forward_step(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> Any:
        return clean_forward_step(ablation(micro_batch, step), *args, **kwargs)

    engine.forward_step = forward_step
    blind = ablation.spec.kind == "drop_vision"
    try:
        with skip_vision_tower(engine.module) if blind else nullcontext():
            yield
    finally:
        del engine.forward_step


def signal_fields(data: TensorDict, log_probs: torch.Tensor, model: ModelFacts) -> TensorDict:
    """What the pass leaves behind: one fp32 number per response token and one flag per row.

    Args:
        data: the batch that was run, with `response_mask` (jagged).
        log_probs: (B, j) jagged over the ablated sequences, whose responses are complete.
        model: tells which tokens stand for images.

    Returns:
        `ablated_log_prob` (B, j) jagged over the responses, and `has_image` (B,) bool.
    """
    fields = {
        ABLATED_LOG_PROB: response_from_nested(log_probs, data["response_mask"]).float(),
        HAS_IMAGE: torch.tensor(count_vision_tokens(data["prompts"], model)) > 0,
    }
    return TensorDict(fields, batch_size=data.batch_size)
