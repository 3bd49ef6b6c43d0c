# SPDX-License-Identifier: Apache-2.0
"""What a vision tower made of pictures: which picture it is, how much is kept, and what the tower is given."""

import re

import pytest
import torch
from support import family_rows

from verl_ext.models.frozen_tower import excluding_tower, freeze_vision_tower, has_adapter
from verl_ext.models.picture_identity import fingerprint, pictures_of
from verl_ext.models.reused_tower import Compared, KnownOnly, NewOnly, run_own_tower
from verl_ext.models.tower_features import FeatureStore, Seen, cut, joined, read
from verl_ext.models.vision_tower import tower_forward_replaced, vision_tower

EXACT = 10**9
GRID = torch.tensor([[1, 4, 4], [1, 4, 6], [1, 4, 4]])


def pixels(grid=GRID, seed=0):
    rows = int(grid.prod(-1).sum())
    return torch.randn(rows, 1176, generator=torch.Generator().manual_seed(seed))


# Which picture


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("columns", [1176, 7])
def test_every_bit_of_a_picture_counts(dtype, columns):
    rows = torch.randn(16, columns, generator=torch.Generator().manual_seed(0)).to(dtype)
    own = fingerprint(rows)
    assert fingerprint(rows.clone()) == own
    for row, column in ((0, 0), (15, columns - 1), (7, 3)):
        changed = rows.clone()
        changed[row, column] = torch.nextafter(changed[row, column].float(), torch.tensor(9.0)).to(dtype) + 1
        assert fingerprint(changed) != own
    assert fingerprint(rows.flip(0)) != own
    assert fingerprint(rows.flip(1)) != own


def test_pictures_that_differ_in_one_value_by_one_bit_all_differ():
    rows = torch.zeros(12, 16)
    bits = [rows]
    for place in range(rows.numel()):
        for bit in range(32):
            changed = rows.clone()
            changed.view(torch.int32).view(-1)[place] = (1 << bit) - (1 << 32) * (bit == 31)
            bits.append(changed)
    assert len({int(fingerprint(each)) for each in bits}) == len(bits)


def test_the_same_rows_in_another_shape_are_another_picture():
    rows = pixels(GRID[1:2])
    (wide,), (high,) = (pictures_of(rows, torch.tensor([grid])) for grid in ([1, 4, 6], [1, 6, 4]))
    assert wide != high
    assert pictures_of(torch.cat([rows, rows]), GRID[[1, 1]]) == [wide, wide]


# What is kept


def test_cut_and_joined_again():
    seen = Seen(torch.randn(14, 8), [torch.randn(14, 8) for _ in range(2)])
    parts = cut(seen, GRID)
    assert [len(part.pooler_output) for part in parts] == [4, 6, 4]
    again = joined(parts, torch.device("cpu"))
    assert all(a.equal(b) for a, b in zip(again.tensors, seen.tensors, strict=True))
    assert again.mean() == seen.pooler_output.mean()


def test_towers_outputs_are_read_like_verl_reads_them():
    pooled, earlier = torch.randn(4, 8), [torch.randn(4, 8)]
    assert read(pooled).tensors == (pooled,)
    assert read((pooled, earlier)).tensors == read(Seen(pooled, earlier)).tensors == (pooled, *earlier)


def test_a_store_keeps_copies_up_to_its_budget():
    store = FeatureStore(budget=2 * 4 * 8 * 4)
    values = torch.ones(4, 8)
    for picture in ((1,), (2,), (2,), (3,)):
        store.add(picture, Seen(values))
    assert ((1,) in store, (2,) in store, (3,) in store) == (True, True, False)
    assert (len(store), store.size) == (2, store.budget)
    values.zero_()
    assert store[1,].pooler_output.eq(1).all()
    store.clear()
    assert (len(store), store.size) == (0, 0)
    store.add((3,), Seen(values))
    assert (3,) in store


# What the tower is given


class Counting:
    """A tower's forward: features that tell rows apart, and what it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, rows, grid_thw):
        self.given.append(len(rows))
        return Seen(rows.unflatten(0, (-1, 4)).sum(1)[:, :8])


def test_only_new_pictures_are_computed():
    own, store, rows = Counting(), FeatureStore(EXACT), pixels()
    forward = NewOnly(own, store, torch.float32)
    rows[-16:] = rows[:16]
    wanted = Counting()(rows, GRID).pooler_output
    assert forward(rows, grid_thw=GRID).pooler_output.equal(wanted)
    assert own.given == [40]
    # Nothing is new: the tower runs on a dummy, since other ranks may have to run it.
    assert forward(rows, grid_thw=GRID).pooler_output.equal(wanted)
    assert own.given == [40, 16]
    assert KnownOnly(own, store, torch.float32)(rows, grid_thw=GRID).pooler_output.equal(wanted)
    assert own.given == [40, 16]


def test_where_all_is_known_an_unknown_picture_is_an_error_and_none_at_all_is_zero():
    own = Counting()
    forward = KnownOnly(own, FeatureStore(EXACT), torch.float32)
    with pytest.raises(KeyError):
        forward(pixels(), grid_thw=GRID)
    assert forward(torch.zeros(16, 1176), grid_thw=GRID[:1]).mean() == 0
    assert own.given == []


@pytest.mark.parametrize(("factor", "fits"), [(1.0, True), (1.0 + 1e-5, True), (1.01, False), (torch.nan, False)])
def test_features_are_compared_with_those_that_are_known(factor, fits):
    own, store, rows = Counting(), FeatureStore(EXACT), pixels()
    forward = Compared(own, store, torch.float32)
    forward(rows, grid_thw=GRID)
    assert forward.compared == 0
    for picture in pictures_of(rows, GRID):
        store[picture].pooler_output.mul_(factor)
    found = forward(rows, grid_thw=GRID)
    assert found.pooler_output.equal(Counting()(rows, GRID).pooler_output)
    assert forward.compared == 3
    assert (forward.difference <= forward.bound) == fits


def test_a_dummy_is_never_kept_or_compared():
    store = FeatureStore(EXACT)
    for kind in (Compared, NewOnly):
        forward = kind(Counting(), store, torch.float32)
        for _ in range(2):
            forward(torch.zeros(16, 1176), grid_thw=GRID[:1])
        assert (forward.compared, len(store)) == (0, 0)


# The tower itself


def test_a_frozen_tower_makes_no_graph_and_nothing_else_changes():
    model = family_rows.load("qwen3_vl")
    row = family_rows.rows("qwen3_vl", model)[0]
    given = {"input_ids": row.input_ids[None], "position_ids": row.position_ids[:, None], **row.inputs}
    wanted = model(**given).logits
    freeze_vision_tower(model, as_one_unit=False)
    model.enable_input_require_grads()
    output = vision_tower(model)(row.inputs["pixel_values"], grid_thw=row.inputs["image_grid_thw"])
    assert not output.pooler_output.requires_grad
    logits = model(**given).logits
    assert logits.equal(wanted)
    logits.sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if ".visual." not in name}


def test_other_pixels_go_to_the_tower_itself():
    model = family_rows.load("qwen2_5_vl")
    tower, own, store = vision_tower(model), Counting(), FeatureStore(EXACT)
    with run_own_tower(model):
        assert "forward" not in tower.__dict__
    with tower_forward_replaced(tower, NewOnly(own, store, torch.float32)):
        with run_own_tower(model):
            tower(pixels(), grid_thw=GRID)
        assert (own.given, len(store)) == ([56], 0)
        tower(pixels(), grid_thw=GRID)
    assert len(store) == 3
    assert "forward" not in tower.__dict__


@pytest.mark.parametrize("excluded", [None, "", "lm_head", ["lm_head"], ".*lm_head"])
def test_no_adapter_on_the_tower(excluded):
    found = excluding_tower(excluded, "visual")
    inside = ("model.visual.blocks.0.attn.qkv", "visual.merger.mlp.0", "model.visual")
    assert all(re.fullmatch(found, name) for name in inside)
    assert not re.fullmatch(found, "model.language_model.layers.0.self_attn.q_proj")
    assert not re.fullmatch(found, "model.visualizer.linear")
    assert bool(re.fullmatch(found, "lm_head")) == bool(excluded)


def test_an_adapter_that_was_given_is_found():
    model = family_rows.load("qwen2_5_vl")
    assert not has_adapter(model)
    vision_tower(model).lora_A = torch.nn.Linear(2, 2)
    assert has_adapter(model)
