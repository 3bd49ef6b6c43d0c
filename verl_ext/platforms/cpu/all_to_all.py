# SPDX-License-Identifier: Apache-2.0
"""The exchange of Ulysses sequence parallelism where gloo has no all-to-all over lists (torch before 2.13)."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from packaging.version import Version
from torch import distributed

from verl_ext.platforms.cpu.patching import replace_symbol


def patch(module: ModuleType) -> None:
    """Replace `verl.utils.ulysses.all_to_all_tensor` (verl 0.9), under the torch that verl pins."""
    if Version(torch.__version__) >= Version("2.13"):
        return
    replace_symbol(module, "all_to_all_tensor", _over_one_tensor, reason="gloo does not support alltoall")


def _over_one_tensor(_original: Callable[..., Any]) -> Callable[..., Any]:
    return exchange


def exchange(
    local_input: torch.Tensor,
    scatter_dim: int,
    gather_dim: int,
    group: distributed.ProcessGroup | None = None,
    async_op: bool = False,
) -> torch.Tensor:
    """Give each rank its part along one dimension, and join what comes from the ranks along another.

    Args:
        local_input: any shape; its size along `scatter_dim` is a multiple of the group's.
        group: verl's sequence-parallel group if None.

    Returns:
        `local_input`'s shape, divided along `scatter_dim` and multiplied along `gather_dim` by the group's size.

    Raises:
        ValueError: an exchange that is not waited for (verl's calls wait for theirs).
    """
    from verl.utils.ulysses import get_ulysses_sequence_parallel_group

    if async_op:
        raise ValueError("the exchange on the CPU is waited for: async_op=False")
    group = group or get_ulysses_sequence_parallel_group()
    sent = torch.stack(local_input.chunk(distributed.get_world_size(group), dim=scatter_dim))
    received = torch.empty_like(sent)
    distributed.all_to_all_single(received, sent, group=group)
    return torch.cat(received.unbind(), dim=gather_dim)
