# SPDX-License-Identifier: Apache-2.0
"""Logits for the tokens of the response alone.

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

from verl_ext.integration.forward_step import ForwardStep
from verl_ext.integration.language_model import HEAD_NAME, hooks, named_part
from verl_ext.integration.token_layout import token_layout


def compute_response_logits_only(engine: Any) -> None:
    """Make `engine` (one of verl's FSDP engines, with its model built) do so from now on.

    Fused kernels never call the head, and Ulysses splits its input over ranks: neither is supported.
    """
    engine.forward_step = _with_short_head_input(engine.forward_step, engine.module)
    engine.prepare_model_outputs = _from_short_logits(engine.prepare_model_outputs)


def _with_short_head_input(step: ForwardStep, model: torch.nn.Module) -> ForwardStep:
    head = named_part(model, HEAD_NAME)
    assert head is not None

    def forward_step(micro_batch: TensorDict, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        where = token_layout(micro_batch, ()).tokens - 1

        def shorten(_head: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (given[0].flatten(0, -2)[where][None], *given[1:])

        with hooks(head.register_forward_pre_hook(shorten)):
            return step(micro_batch, *args, **kwargs)

    return forward_step


def _from_short_logits(prepare: Any) -> Any:
    """verl's `prepare_model_outputs` on a packed batch of responses, its results spread over the whole sequences."""

    def prepare_model_outputs(
        output: Any, output_args: dict[str, Any], micro_batch: TensorDict, **kwargs: Any
    ) -> dict[str, Tensor]:
        ids = micro_batch["input_ids"]
        short = micro_batch.copy()
        tu.assign_non_tensor(short, use_remove_padding=True)
        where = token_layout(short, ()).tokens - 1
        labels = ids.values()[where + 1]
        short["input_ids"] = nested_tensor_from_jagged(labels, micro_batch["responses"].offsets())
        short_args = {
            **output_args,
            "input_ids_rmpad_rolled": labels,
            "temperature_rmpad": _temperatures(output_args, ids)[where],
            "pad_size": 0,
        }
        found = prepare(output=output, output_args=short_args, micro_batch=short, **kwargs)
        return {name: _spread(values.values(), where, ids) for name, values in found.items()}

    return prepare_model_outputs


def _temperatures(output_args: dict[str, Any], ids: Any) -> Tensor:
    """(positions,) temperature of each packed token."""
    if "temperature_rmpad" in output_args:
        return output_args["temperature_rmpad"]
    return torch.repeat_interleave(output_args["temperature"], ids.offsets().diff())


def _spread(values: Tensor, where: Tensor, ids: Any) -> Tensor:
    """(B, j) jagged over whole sequences: `values` at `where`, zero elsewhere."""
    full = values.new_zeros(ids.values().shape[0]).index_copy(0, where, values)
    return nested_tensor_from_jagged(full, ids.offsets())
