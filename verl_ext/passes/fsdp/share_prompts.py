# SPDX-License-Identifier: Apache-2.0
"""Every prompt of a micro-batch and its pictures once, in all passes of one of verl's FSDP engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.utils.metric import AggregationType, Metric
from verl.workers.engine.fsdp import transformer_impl

from verl_ext.attention.hooks import install, why_not
from verl_ext.models.language_model import decoder, family
from verl_ext.passes.forward_step import ForwardStep, method_replaced
from verl_ext.passes.fsdp.first_use import FirstUse
from verl_ext.passes.fsdp.micro_batches import by_group
from verl_ext.passes.shared_prompts import forget_sharing, shared_prompts
from verl_ext.vocabulary import PROMPT_TOKENS, SAVED_TOKENS, SHARE_PROMPTS


def why_not_shared(engine: Any, response_only: bool) -> str | None:
    """Why `engine` cannot share prompts, for people; None if it can.

    Args:
        engine: one of verl's FSDP engines, with its model built.
        response_only: whether its head sees response tokens alone.
    """
    known = family(engine.module)
    text = engine.module.config.get_text_config()
    windows = {kind for kind in getattr(text, "layer_types", None) or () if kind != "full_attention"}
    if not response_only:
        return "logits are computed of all tokens (perception.response_only_logits, or fused kernels)"
    if engine.use_ulysses_sp:
        return "sequences are cut over ranks (ulysses_sequence_parallel_size)"
    if windows or not known.shares_prompts:
        return f"{known.name} has, or may have, layers without full attention, whose states cannot branch off"
    return why_not(text._attn_implementation)


def share_prompts(engine: Any) -> None:
    """Have `engine` share prompts from now on, once a first use has shown that nothing changes by it.

    Args:
        engine: one of verl's FSDP engines for which :func:`why_not_shared` is None.
    """
    install(decoder(engine.module).layers[0].self_attn, engine.module.config.get_text_config()._attn_implementation)
    engine.prepare_model_inputs = _from_groups(engine.prepare_model_inputs)
    first_use = FirstUse(engine)
    engine.forward_step = _telling(engine.forward_step)
    engine.forward_backward_batch = _sharing(engine.forward_backward_batch, first_use)


def _sharing(own: Callable[..., Any], first_use: FirstUse) -> Callable[..., Any]:
    """verl's loop over micro-batches, which keep groups together and share their prompts."""

    def forward_backward_batch(data: TensorDict, *args: Any, **kwargs: Any) -> Any:
        forget_sharing(data)
        share = first_use.allows(data)
        tu.assign_non_tensor(data, **{SHARE_PROMPTS: share})
        if not share:
            return own(data, *args, **kwargs)
        with method_replaced(transformer_impl, "prepare_micro_batches", by_group):
            return own(data, *args, **kwargs)

    return forward_backward_batch


def _from_groups(own: Callable[..., Any]) -> Callable[..., Any]:
    """verl's preparation of a model's inputs, of the shared sequences where there are any."""

    def prepare_model_inputs(micro_batch: TensorDict) -> Any:
        shared = shared_prompts(micro_batch)
        return own(micro_batch=micro_batch if shared is None else shared.batch.to(get_device_id()))

    return prepare_model_inputs


def _telling(step: ForwardStep) -> ForwardStep:
    """Also tell, in updates, how many prompt tokens another row computed, of how many."""

    def forward_step(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        loss, output = step(micro_batch, *args, **kwargs)
        if torch.is_grad_enabled():
            shared = shared_prompts(micro_batch)
            tokens = micro_batch["input_ids"].values().numel() - micro_batch["responses"].values().numel()
            output["metrics"] |= {
                SAVED_TOKENS: Metric(AggregationType.SUM, 0.0 if shared is None else float(shared.saved.sum())),
                PROMPT_TOKENS: Metric(AggregationType.SUM, float(tokens)),
            }
        return loss, output

    return forward_step
