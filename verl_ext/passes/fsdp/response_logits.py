# SPDX-License-Identifier: Apache-2.0
"""Logits for the tokens of the response alone, or for none.

verl computes logits of every token, prompt and image included, and throws all but the response's away. Here the head
sees only the states that predict response tokens; what verl makes of their logits is put back among zeros, so that
everything behind finds it where it looks.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nested import nested_tensor_from_jagged
from verl.utils import tensordict_utils as tu

from verl_ext.errors import ConfigurationError
from verl_ext.models.language_model import family, head_part, hooks
from verl_ext.passes.equal_lists import EqualLists
from verl_ext.passes.forward_step import ForwardStep
from verl_ext.passes.own_positions import Parts, parts_of
from verl_ext.passes.shared_prompts import shared_prompts
from verl_ext.passes.token_layout import predictors
from verl_ext.vocabulary import NO_LOGITS


def can_choose_logits(engine: Any) -> bool:
    """Whether `engine` makes its logits by a head that :func:`choose_logits` can reach."""
    return not engine.model_config.use_fused_kernels and head_part(engine.module) is not None


def gives_response_logits(engine: Any) -> bool:
    """Whether the head of `engine` sees response tokens alone."""
    return getattr(engine, "perception_response_only", False)


def choose_logits(engine: Any, response_only: bool) -> None:
    """Make `engine` heed `NO_LOGITS` from now on and, if `response_only`, compute logits of response tokens alone.

    Fused kernels never call the head and are not supported.

    Args:
        engine: one of verl's FSDP engines, with its model built.
        response_only: whether micro-batches without `NO_LOGITS` get those of their response tokens, or of all.
    """
    parts = parts_of(engine)
    engine.perception_response_only = response_only
    engine.forward_step = _with_short_head_input(engine.forward_step, engine.module, parts, response_only)
    engine.prepare_model_outputs = _from_short_logits(engine.prepare_model_outputs, parts, response_only)


def _with_short_head_input(step: ForwardStep, model: torch.nn.Module, parts: Parts, response_only: bool) -> ForwardStep:
    head = head_part(model)
    if head is None:
        raise ConfigurationError(
            key="actor_rollout_ref.model.path",
            value=type(model).__name__,
            remedy=f"it has no `{family(model).head}` whose input could be shortened; write "
            "perception.response_only_logits=False and divergence=k3",
        )

    def forward_step(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        none = _without_logits(micro_batch)
        if not (none or response_only):
            return step(micro_batch, *args, **kwargs)
        where = None if none else predictors(micro_batch)

        def shorten(_head: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            states = given[0].flatten(0, -2)
            rows = slice(1) if where is None else EqualLists.of(where, parts, len(states)).rows
            return (states[rows][None], *given[1:])

        with hooks(head.register_forward_pre_hook(shorten)):
            return step(micro_batch, *args, **kwargs)

    return forward_step


def _from_short_logits(prepare: Any, parts: Parts, response_only: bool) -> Any:
    """verl's `prepare_model_outputs` on a packed batch of responses, its results spread over the whole sequences."""

    def prepare_model_outputs(
        output: Any, output_args: dict[str, Any], micro_batch: TensorDict, **kwargs: Any
    ) -> dict[str, Tensor]:
        if _without_logits(micro_batch):
            return {}
        if not response_only:
            return prepare(output=output, output_args=output_args, micro_batch=micro_batch, **kwargs)
        ids, where = micro_batch["input_ids"], predictors(micro_batch, packed=True)
        labels, temperatures = output_args["input_ids_rmpad_rolled"], _temperatures(output_args, ids)
        if shared_prompts(micro_batch) is not None:
            # No cut over ranks: what the head saw are the states at `where`, in order.
            labels, temperatures = _unshared(micro_batch)
        short = EqualLists.of(where, parts, len(labels))
        packed = micro_batch.copy()
        tu.assign_non_tensor(packed, use_remove_padding=True)
        packed["input_ids"] = _one_row_of(parts.ranks * short.length, like=ids)
        short_args = {
            **output_args,
            "input_ids_rmpad_rolled": labels[short.rows],
            "temperature_rmpad": temperatures[short.rows],
            "pad_size": 0,
        }
        found = prepare(output=output, output_args=short_args, micro_batch=packed, **kwargs)
        return {name: _spread(values.values()[short.order], where, ids) for name, values in found.items()}

    return prepare_model_outputs


def _without_logits(micro_batch: TensorDict) -> bool:
    return bool(tu.get_non_tensor_data(data=micro_batch, key=NO_LOGITS, default=False))


def _unshared(micro_batch: TensorDict) -> tuple[Tensor, Tensor]:
    """(positions,) next token and temperature of each position of the sequences laid end to end."""
    ids, temperature = micro_batch["input_ids"], micro_batch["temperature"]
    rows = torch.as_tensor(temperature, dtype=torch.float32, device=ids.device).expand(len(micro_batch))
    return ids.values().roll(-1), torch.repeat_interleave(rows, ids.offsets().diff())


def _temperatures(output_args: dict[str, Any], ids: Any) -> Tensor:
    """(positions,) temperature of each packed token that this rank computes."""
    if "temperature_rmpad" in output_args:
        return output_args["temperature_rmpad"]
    return torch.repeat_interleave(output_args["temperature"], ids.offsets().diff())


def _one_row_of(length: int, like: Any) -> Tensor:
    """(B, j) jagged zeros with as many rows as `like`, all elements in the first."""
    offsets = torch.full_like(like.offsets(), length)
    offsets[0] = 0
    return nested_tensor_from_jagged(like.values().new_zeros(length), offsets)


def _spread(values: Tensor, where: Tensor, ids: Any) -> Tensor:
    """(B, j) jagged over whole sequences: `values` at `where`, zero elsewhere."""
    full = values.new_zeros(ids.values().shape[0]).index_copy(0, where, values)
    return nested_tensor_from_jagged(full, ids.offsets())
