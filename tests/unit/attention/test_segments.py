# SPDX-License-Identifier: Apache-2.0
"""What a packed sequence is made of, and attention over it, against a mask over everything."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from verl_ext.attention.by_segment import attend_by_segment
from verl_ext.attention.segments import Layout, Segment, layout_of, segments_of

CPU = torch.device("cpu")
# (prompt, responses) of each group in a pack.
PACKS = {
    "one group": [(5, [3, 4, 2])],
    "long responses": [(2, [7, 9])],
    "two groups and one alone": [(4, [2, 3]), (6, [1]), (3, [5, 1, 1, 2])],
    "an empty response": [(4, [0, 3, 0, 2])],
    "more than a block": [(3, [2, 300, 257])],
}


def positions(pack):
    runs = [
        torch.arange(0 if place == 0 else prompt, prompt + length)
        for prompt, responses in pack
        for place, length in enumerate(responses)
    ]
    return torch.cat(runs)[None]


def allowed(pack):
    """(N, N) bool: what each token sees."""
    groups = [prompt + sum(responses) for prompt, responses in pack]
    mask = torch.zeros(sum(groups), sum(groups), dtype=torch.bool)
    begin = 0
    for (prompt, responses), size in zip(pack, groups, strict=True):
        end = begin + prompt
        mask[begin:end, begin:end] = torch.ones(prompt, prompt).tril().bool()
        for length in responses:
            mask[end : end + length, begin : begin + prompt] = True
            mask[end : end + length, end : end + length] = torch.ones(length, length).tril().bool()
            end += length
        begin += size
    return mask


def states(length, heads=4, key_heads=2):
    generator = torch.Generator().manual_seed(length)
    shapes = [(1, count, length, 8) for count in (heads, key_heads, key_heads)]
    return [torch.randn(shape, generator=generator, dtype=torch.double).requires_grad_() for shape in shapes]


def test_segments():
    assert segments_of(positions(PACKS["two groups and one alone"])) == (
        Segment(0, 6, 0, 0),
        Segment(6, 9, 0, 4),
        Segment(9, 16, 9, 0),
        Segment(16, 24, 16, 0),
        Segment(24, 25, 16, 3),
        Segment(25, 26, 16, 3),
        Segment(26, 28, 16, 3),
    )


def test_packs_without_shared_prompts_have_no_layout():
    assert layout_of(None) is None
    assert layout_of(torch.arange(5)[None]) is None
    assert layout_of(torch.tensor([[0, 1, 2, 0, 1, 0]])) is None
    assert layout_of(torch.tensor([[0, 1, 1], [0, 1, 0]])) is None
    assert layout_of(torch.tensor([[0, 1, 2, 1]])) is not None


def test_a_layout_is_found_anew_for_other_positions_and_changed_ones():
    first = torch.tensor([[0, 1, 2, 1]])
    assert layout_of(first) is layout_of(first)
    assert len(layout_of(torch.tensor([[0, 1, 2, 2, 2]])).segments) == 3
    assert len(layout_of(first).segments) == 2
    first[0, 3] = 3
    assert layout_of(first) is None


def test_a_response_behind_more_than_there_is():
    with pytest.raises(ValueError, match="the segment at 2 goes on from 5 tokens of a sequence of 2"):
        segments_of(torch.tensor([0, 1, 5]))


@pytest.mark.parametrize("pack", PACKS)
def test_attention_is_that_of_a_mask(pack):
    mask = allowed(PACKS[pack])
    query, key, value = states(len(mask))
    expected = scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True, scale=0.3)
    found = attend_by_segment(query, key, value, segments_of(positions(PACKS[pack])), scaling=0.3)
    torch.testing.assert_close(found, expected)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    wanted, got = (torch.autograd.grad((o * direction).sum(), (query, key, value)) for o in (expected, found))
    for one, other in zip(wanted, got, strict=True):
        torch.testing.assert_close(other, one)


def varlen(query, key, value, layout):
    """What flash-attention's kernel for various lengths gives: a causal mask that ends where queries and keys end."""
    found = []
    for q, k in zip(layout.query_ends.unfold(0, 2, 1).tolist(), layout.key_ends.unfold(0, 2, 1).tolist(), strict=True):
        lengths = q[1] - q[0], k[1] - k[0]
        mask = torch.ones(lengths, dtype=torch.bool).tril(lengths[1] - lengths[0])
        parts = query[:, :, slice(*q)], key[:, :, slice(*k)], value[:, :, slice(*k)]
        found.append(scaled_dot_product_attention(*parts, attn_mask=mask, enable_gqa=True))
    return torch.cat(found, dim=2)


@pytest.mark.parametrize("pack", PACKS)
def test_a_kernel_for_various_lengths_finds_keys_of_prompt_and_response(pack):
    mask = allowed(PACKS[pack])
    query, key, value = states(len(mask))
    layout = Layout(segments_of(positions(PACKS[pack])), CPU)
    keys, values = (each.index_select(2, layout.keys) for each in (key, value))
    expected = scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(varlen(query, keys, values, layout), expected)
    assert layout.query_ends.dtype == layout.key_ends.dtype == torch.int32
    assert layout.longest_query == layout.query_ends.diff().max()
    assert layout.longest_keys == layout.key_ends.diff().max()
