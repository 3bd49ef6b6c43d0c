# SPDX-License-Identifier: Apache-2.0
"""The ranks that compute one micro-batch together, and what each has of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """Ranks that share something, and this one among them; `group` is None where it is alone."""

    group: Any = None

    @property
    def size(self) -> int:
        """Number of ranks."""
        return 1 if self.group is None else dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """This one's number."""
        return 0 if self.group is None else dist.get_rank(self.group)

    def summed(self, values: Tensor) -> Tensor:
        """`values` added over them, in place."""
        if self.group is not None:
            dist.all_reduce(values, group=self.group)
        return values


@dataclass(frozen=True)
class Grid:
    """What a micro-batch is cut over.

    Tensor parallelism alone is no part of it: every tensor-parallel rank then has all hidden states.

    Attributes:
        context: ranks with other parts of each sequence (context parallelism).
        sequence: ranks with consecutive parts of what a context rank has (sequence parallelism); the tensor-parallel
            group, or nobody.
        pipeline: ranks with other layers of the same positions.
    """

    context: Axis
    sequence: Axis
    pipeline: Axis

    @property
    def ranks(self) -> int:
        """Number of parts of a micro-batch's positions."""
        return self.context.size * self.sequence.size

    @property
    def rank(self) -> int:
        """Which of them this rank has."""
        return self.context.rank * self.sequence.size + self.sequence.rank

    def summed(self, values: Tensor) -> Tensor:
        """`values` added over the ranks that have the same layers."""
        return self.sequence.summed(self.context.summed(values))

    def summed_over_layers(self, values: Tensor) -> Tensor:
        """`values` added over the ranks that have other layers. Never call it while a pipeline runs."""
        return self.pipeline.summed(values)


def grid_of(sequence_parallel: bool) -> Grid:
    """The grid that Megatron has set up in this process."""
    from megatron.core import parallel_state

    return Grid(
        context=_axis(parallel_state.get_context_parallel_group()),
        sequence=_axis(parallel_state.get_tensor_model_parallel_group() if sequence_parallel else None),
        pipeline=_axis(parallel_state.get_pipeline_model_parallel_group()),
    )


def tensor_parallel_axis() -> Axis:
    """The ranks that share the vocabulary."""
    from megatron.core import parallel_state

    return _axis(parallel_state.get_tensor_model_parallel_group())


def _axis(group: Any) -> Axis:
    return Axis(group) if Axis(group).size > 1 else Axis()
