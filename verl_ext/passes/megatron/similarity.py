# SPDX-License-Identifier: Apache-2.0
"""Similarity to the image, from the hidden states of layers that stand on several pipeline stages.

Each stage sums up its own layers while the pipeline runs. Stages must not wait for each other before the whole pass is
over, so the last stage returns a number for each token instead, in the order in which micro-batches run; verl puts
these in the order of the batch like any result, and they are exchanged for the values once the stages have added up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nested import nested_tensor_from_jagged

from verl_ext.passes.forward_step import method_replaced
from verl_ext.passes.megatron.grid import Grid
from verl_ext.passes.megatron.layer_sums import LayerSums, StageSimilarities
from verl_ext.passes.megatron.model import hidden_states_to
from verl_ext.passes.token_layout import token_layout
from verl_ext.signals.layout import TokenLayout
from verl_ext.signals.request import Similarity

TOKEN_NUMBER = "perception_token_number"
"""Field of a micro-batch's results, (B, j) jagged int64 over the responses."""


def measuring_similarities(
    engine: Any, signals: Sequence[Similarity], vision_token_ids: Sequence[int], grid: Grid
) -> AbstractContextManager[None]:
    """While open, the engine's passes also return a jagged field a signal over the responses.

    Args:
        engine: verl's Megatron engine.
        signals: what to measure.
        vision_token_ids: ids of the placeholders that image features replace.
        grid: what micro-batches are cut over.
    """

    def wrap(run: Callable[..., Any]) -> Callable[..., Any]:
        def forward_backward_batch(*args: Any, **kwargs: Any) -> Any:
            totals = [LayerSums(signal, grid) for signal in signals]
            with method_replaced(engine, "forward_step", lambda step: _measuring(step, totals, vision_token_ids, grid)):
                output = run(*args, **kwargs)
            means = {total.signal.field: total.mean() for total in totals}
            if output:
                _exchange(output["model_output"], means)
            return output

        return forward_backward_batch

    return method_replaced(engine, "forward_backward_batch", wrap)


def _exchange(results: dict[str, Tensor], means: Mapping[str, Tensor]) -> None:
    """Put the values of tokens in place of their numbers."""
    numbers: Any = results.pop(TOKEN_NUMBER)
    for field, values in means.items():
        results[field] = nested_tensor_from_jagged(values[numbers.values()], numbers.offsets())


def _measuring(
    step: Callable[..., Any], totals: Sequence[LayerSums], vision_token_ids: Sequence[int], grid: Grid
) -> Callable[..., Any]:
    def forward_step(batch_iter: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        micro_batch = next(batch_iter)
        first = totals[0].count(id(model))
        layout = token_layout(micro_batch, vision_token_ids, packed=True)
        offsets = micro_batch["input_ids"].offsets().to(layout.tokens.device)
        measure = StageSimilarities([total.signal for total in totals], layout, offsets, grid)
        with measure.seen.watching(model), hidden_states_to(measure.add, model):
            output, postprocess = step(iter([micro_batch]), model, *args, **kwargs)
        for total, (sums, layers) in zip(totals, measure.results(), strict=True):
            total.add(id(model), sums, layers)
        if isinstance(output, dict):
            output[TOKEN_NUMBER] = _numbers(first, micro_batch, layout)
        return output, postprocess

    return forward_step


def _numbers(first: int, micro_batch: TensorDict, layout: TokenLayout) -> Tensor:
    numbers = torch.arange(first, first + len(layout.tokens), device=layout.tokens.device)
    return nested_tensor_from_jagged(numbers, micro_batch["responses"].offsets().to(numbers.device))
