# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks/flops.py` stands on: tensors without content, and FLOPs of attention by the pairs that attend."""

import pytest
import torch
from support import tiny
from support.tiny import ROOT
from torch.utils.flop_counter import FlopCounterMode

from verl_ext.attention.segments import segments_of

PROMPT, RESPONSES, HEADS, WIDTH = 5, (3, 7, 1), 4, 8


@pytest.fixture
def shapes_only(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import shapes_only

    return shapes_only


@pytest.fixture
def counted_attention(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import counted_attention

    return counted_attention


def states(length, heads=HEADS):
    return torch.randn(1, length, heads, WIDTH, requires_grad=True)


def has_content(tensor):
    return any(tensor.stride())


def test_large_layers_take_no_memory_and_the_flops_of_real_ones(shapes_only):
    with shapes_only.ShapesOnly(), FlopCounterMode(display=False) as counter:
        layer = torch.nn.Linear(100_000, 200_000)
        output = layer(torch.empty(50, 100_000))
        torch.relu(output).sum().backward()
    assert output.shape == (50, 200_000)
    assert not has_content(layer.weight)
    assert layer.weight.grad.shape == layer.weight.shape
    assert counter.get_total_flops() == 2 * 2 * 50 * 100_000 * 200_000


def test_integers_and_small_floats_are_computed(shapes_only):
    with shapes_only.ShapesOnly():
        ids = torch.arange(200_000)
        table = torch.nn.Embedding(1000, 512)
        found = table(ids % 7)
        few = torch.linspace(0, 1, 5)
        made = few.new_zeros(1_000_000_000_000)
        assert torch.equal(ids[ids % 2 == 0], torch.arange(0, 200_000, 2))
        chosen = found[ids % 1000 == 3]
        found[ids > 5] = 1.0
    assert not has_content(made)
    assert few.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert chosen.shape == (200, 512)
    assert found.shape == (200_000, 512)


def test_a_model_has_the_flops_it_has_with_content(shapes_only, counted_attention, monkeypatch):
    vlm = tiny.model(torch.float32)
    row = tiny.row([(64, 64)], "what color is the shape?", "red", vlm)
    inputs = {**row.inputs, "input_ids": row.input_ids[None], "position_ids": row.position_ids[:, None]}

    def flops():
        with counted_attention.counted() as counter:
            vlm(**inputs).logits.sum().backward()
        return counter.get_total_flops()

    real = flops()
    monkeypatch.setattr(shapes_only, "LARGE", 64)
    with shapes_only.ShapesOnly():
        assert flops() == real > 0


@pytest.mark.parametrize("lengths", [[6], [6, 9]])
def test_causal_sequences_of_a_pack(counted_attention, lengths):
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    query, key, value = states(sum(lengths)), states(sum(lengths), 2), states(sum(lengths), 2)
    with counted_attention.counted() as counter:
        attend = counted_attention.packed_attention.attend_packed
        output = attend(query, key, value, None, sum(lengths), position_ids=positions)
        forward = counter.get_total_flops()
        output.sum().backward()
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    assert forward == 4 * WIDTH * HEADS * pairs
    assert counter.get_total_flops() - forward == 10 * WIDTH * HEADS * pairs
    assert query.grad.shape == query.shape
    assert key.grad.shape == key.shape


def test_responses_behind_a_prompt(counted_attention):
    runs = [torch.arange(PROMPT + RESPONSES[0]), *(PROMPT + torch.arange(length) for length in RESPONSES[1:])]
    segments, length = segments_of(torch.cat(runs)), sum(map(len, runs))
    query, key, value = (states(length).transpose(1, 2) for _ in range(3))
    with counted_attention.counted() as counter:
        counted_attention.hooks.attend_by_segment(query, key, value, segments)
    # Each token sees itself and what is before it in its own sequence.
    seen = [place + 1 for run in runs for place in run.tolist()]
    assert counter.get_total_flops() == 4 * WIDTH * HEADS * sum(seen)


def test_masks_and_windows(counted_attention):
    query, key, value = (states(6).transpose(1, 2) for _ in range(3))
    mask = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    with counted_attention.counted() as counter:
        torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        masked = counter.get_total_flops()
        ends = torch.tensor([0, 4, 6], dtype=torch.int32)
        counted_attention.attend_in_windows(None, query, key, value, None, cu_seq_lens_q=ends)
    assert masked == 4 * WIDTH * HEADS * int(mask.sum())
    assert counter.get_total_flops() - masked == 4 * WIDTH * HEADS * (4 * 4 + 2 * 2)
    with counted_attention.counted(), pytest.raises(ValueError, match="masks"):
        torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.float())
