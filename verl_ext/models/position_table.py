# SPDX-License-Identifier: Apache-2.0
"""A table of positions that a vision tower reads by its weight, kept readable where FSDP shards it."""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule


def let_table_be_read(tower: torch.nn.Module, name: str) -> None:
    """Have the embedding called `name` in `tower` looked up by calling it.

    FSDP2 shards every embedding by itself and gathers its weight while it is called; a module that reads the weight
    without calling finds this rank's shard. While the embedding's owner runs, the rows that calling gives for all
    indices stand in the weight's place, and gradients go back the same way. FSDP1, and FSDP2 where the embedding is
    not sharded by itself, have gathered the weight by then, and nothing is done.

    Args:
        tower: of an engine's model.
        name: dotted path of an embedding below it.
    """
    owner_name, _, table_name = name.rpartition(".")
    owner = tower.get_submodule(owner_name)
    table: Any = owner.get_submodule(table_name)
    sharded = isinstance(table, FSDPModule)

    def before(_owner: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if not sharded:
            return
        # Where the owner computes: an offloaded shard lies elsewhere.
        device = next(value.device for value in chain(args, kwargs.values()) if isinstance(value, torch.Tensor))
        rows = table(torch.arange(table.num_embeddings, device=device))
        # An instance's own attribute is found before its submodules.
        owner.__dict__[table_name] = SimpleNamespace(weight=rows)

    def after(_owner: torch.nn.Module, _args: Any, _output: Any) -> None:
        owner.__dict__.pop(table_name, None)

    owner.register_forward_pre_hook(before, with_kwargs=True)
    owner.register_forward_hook(after, always_call=True)
