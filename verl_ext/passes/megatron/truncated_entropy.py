# SPDX-License-Identifier: Apache-2.0
"""Truncated entropies, from logits whose vocabulary is cut over tensor-parallel ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor
from verl.workers.utils.padding import response_from_nested

from verl_ext.passes.forward_step import method_replaced
from verl_ext.passes.megatron.grid import Axis
from verl_ext.passes.token_layout import temperature
from verl_ext.signals.entropy import truncated_entropy
from verl_ext.signals.request import Entropy

READER = "perception_entropies"
"""Attribute of an engine: its :class:`EntropyReader`."""

TOKEN_CHUNK = 512
"""Tokens whose logits are put together at a time."""


class EntropyReader:
    """verl's `_lm_head_logits_processor`, which also measures `signals`; none but while a clean pass is open."""

    def __init__(self, process: Callable[..., dict[str, Tensor]], tensor_parallel: Axis) -> None:
        self._process, self._axis = process, tensor_parallel
        self.signals: Sequence[Entropy] = ()

    def __call__(
        self, logits: Tensor, label: Tensor, temperature: Tensor, *, batch: TensorDict, **kwargs: Any
    ) -> dict[str, Tensor]:
        """verl's results and a (columns, places) tensor a signal."""
        # First: verl divides the logits by the temperature in place.
        found = {signal.field: self._entropies(logits, signal, batch) for signal in self.signals}
        return {**self._process(logits, label, temperature, batch=batch, **kwargs), **found}

    @torch.no_grad()
    def _entropies(self, logits: Tensor, signal: Entropy, batch: TensorDict) -> Tensor:
        values = [
            truncated_entropy(self._whole(part), signal.top_p, temperature=temperature(batch))
            for part in logits.flatten(0, -2).split(TOKEN_CHUNK)
        ]
        return torch.cat(values).view(logits.shape[:-1])

    def _whole(self, logits: Tensor) -> Tensor:
        """(n, V) logits of which each rank has (n, V / ranks)."""
        if self._axis.group is None:
            return logits
        parts = [torch.empty_like(logits) for _ in range(self._axis.size)]
        dist.all_gather(parts, logits.contiguous(), group=self._axis.group)
        return torch.cat(parts, dim=-1)


def let_entropies_be_read(engine: Any, tensor_parallel: Axis) -> None:
    """Fit `engine` with an :class:`EntropyReader`, before anything else takes the place of verl's processor."""
    reader = EntropyReader(engine._lm_head_logits_processor, tensor_parallel)
    setattr(engine, READER, reader)
    engine._lm_head_logits_processor = reader


@contextmanager
def reading_entropies(engine: Any, signals: Sequence[Entropy]) -> Iterator[None]:
    """While open, the engine's passes also return a jagged field a signal over the responses."""
    reader: EntropyReader = getattr(engine, READER)

    def wrap(run: Callable[..., Any]) -> Callable[..., Any]:
        def forward_backward_batch(data: TensorDict, *args: Any, **kwargs: Any) -> Any:
            output = run(data, *args, **kwargs)
            for signal in signals if output else ():
                values = output["model_output"][signal.field]
                mask = data["response_mask"].to(values.device)
                output["model_output"][signal.field] = response_from_nested(values, mask).float()
            return output

        return forward_backward_batch

    with method_replaced(engine, "forward_backward_batch", wrap):
        reader.signals = signals
        try:
            yield
        finally:
            reader.signals = ()
