# SPDX-License-Identifier: Apache-2.0
"""The positions that a language model on Megatron gets in a blind pass, in whatever form its owner gives them."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from support.sharded_similarity import zigzag
from tensordict import TensorDict
from torch.nested import nested_tensor_from_jagged

from verl_ext.passes.megatron.grid import Axis, Grid
from verl_ext.passes.megatron.position_ids import own_positions

LENGTHS, PADDED = [5, 1, 8], [8, 4, 12]


class Context(NamedTuple):
    """A context-parallel rank without a process group."""

    size: int
    rank: int


class LanguageModel(torch.nn.Module):
    def forward(self, position_ids, packed_seq_params=None):
        return position_ids


class Owner(torch.nn.Module):
    """Calls the language model's `forward` itself, as Megatron-Bridge's models do."""

    def __init__(self):
        super().__init__()
        self.language_model = LanguageModel()

    def forward(self, **kwargs):
        return self.language_model.forward(**kwargs)


@pytest.fixture
def batch():
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    count = int(offsets[-1])
    positions = torch.stack([torch.arange(count) + 1000 * row for row in range(1, 5)])
    fields = {
        "input_ids": nested_tensor_from_jagged(torch.arange(count), offsets),
        "position_ids": nested_tensor_from_jagged(positions, offsets, jagged_dim=2),
    }
    return TensorDict(fields, batch_size=len(LENGTHS))


def seen(batch, given, pack=None, context=None):
    """What the language model gets where its owner gives `given`."""
    model = Owner()
    context = context or Axis()
    with own_positions(model, batch, Grid(context, Axis(), Axis())):
        found = model(position_ids=given, packed_seq_params=pack)
    assert model(position_ids=given) is given
    return found


def padded_rows(batch, lengths):
    """Of each row, its three rotary positions and then -1 up to its padded length, as lists of columns."""
    rows = batch["position_ids"].values()[1:].split(LENGTHS, dim=1)
    return [
        [*row.unbind(1), *[torch.full((3,), -1)] * (n - row.shape[1])] for row, n in zip(rows, lengths, strict=True)
    ]


PACK = SimpleNamespace(cu_seqlens_q_padded=torch.tensor([0, *PADDED]).cumsum(0).int())


def test_a_padded_batch(batch):
    expected = torch.stack([torch.stack(row, dim=1) for row in padded_rows(batch, [9] * 3)], dim=1)
    assert torch.equal(seen(batch, torch.full((3, 3, 9), -1)), expected)


def test_a_padded_batch_beside_a_pack(batch):
    expected = torch.stack([torch.stack(row, dim=1) for row in padded_rows(batch, [8] * 3)], dim=1)
    assert torch.equal(seen(batch, torch.full((3, 3, 8), -1), PACK), expected)


@pytest.mark.parametrize(("ranks", "rank"), [(1, 0), (2, 0), (2, 1)])
def test_a_pack_cut_by_context_parallelism(batch, ranks, rank):
    columns = [column for row in padded_rows(batch, PADDED) for column in zigzag(row, ranks, rank)]
    given = torch.full((3, 1, sum(PADDED) // ranks), -1)
    found = seen(batch, given, PACK, Context(ranks, rank))
    assert torch.equal(found, torch.stack(columns, dim=1)[:, None])


def test_a_pack_that_will_be_cut_later(batch):
    columns = [column for row in padded_rows(batch, PADDED) for column in row]
    found = seen(batch, torch.full((3, 1, sum(PADDED)), -1), PACK, Context(2, 1))
    assert torch.equal(found, torch.stack(columns, dim=1)[:, None])


@pytest.mark.parametrize("shape", [(1, 12), (3, 2, 9), (3, 3, 6)], ids=["one axis", "fewer rows", "too short"])
def test_positions_of_another_form_are_refused(batch, shape):
    with pytest.raises(RuntimeError, match=r"takes positions of shape|not known here"):
        seen(batch, torch.zeros(shape))
