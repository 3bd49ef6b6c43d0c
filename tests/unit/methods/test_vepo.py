# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import reference

from verl_ext.methods.vepo import token_mask, token_scores


@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.sampled_from([0.1, 0.2, 0.5, 1.0]))
def test_against_one_token_after_another(seed, share, fraction):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 13, (5,), generator=generator)
    mask = torch.arange(12) < lengths[:, None]
    parts = [torch.randint(0, 5, (5, 12), generator=generator).double() / 4 for _ in range(3)]
    scores = token_scores(*parts, mask, divergence_share=share)
    kept = token_mask(scores, mask, has_image=torch.ones(5), top_fraction=fraction)
    for row, length in enumerate(lengths.tolist()):
        expected = reference.vepo_scores(*(part[row, :length].tolist() for part in parts), share)
        assert scores[row, :length].tolist() == pytest.approx(expected, abs=1e-12)
        assert kept[row, :length].tolist() == reference.vepo_mask(scores[row, :length].tolist(), fraction)
        assert (scores[row, length:] == 0).all()
        assert (kept[row, length:] == 0).all()


def test_a_fifth_is_kept_and_at_least_one():
    for length, count in ((1, 1), (4, 1), (5, 1), (6, 2), (10, 2), (11, 3)):
        scores = torch.rand(1, length, generator=torch.Generator().manual_seed(length))
        kept = token_mask(scores, torch.ones(1, length), has_image=torch.ones(1))
        assert kept.sum() == (count if length > 1 else 1)


def test_rows_that_say_nothing_keep_all_tokens():
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.4, 0.4, 0.4], [0.1, 0.2, 0.3]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0]])
    kept = token_mask(scores, mask, has_image=torch.tensor([False, True, True]))
    assert kept.tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_garbage_outside_the_mask_and_padding_change_nothing():
    generator = torch.Generator().manual_seed(0)
    parts = [torch.rand(4, 9, generator=generator) for _ in range(3)]
    mask = torch.rand(4, 9, generator=generator) > 0.4
    expected = token_scores(*parts, mask)
    dirty = [torch.nn.functional.pad(torch.where(mask, p, torch.nan), (0, 2), value=torch.inf) for p in parts]
    wide = torch.nn.functional.pad(mask, (0, 2))
    scores = token_scores(*dirty, wide)
    torch.testing.assert_close(scores[:, :9], expected)
    assert (scores[:, 9:] == 0).all()
    kept = token_mask(scores.masked_fill(~wide, torch.nan), wide, has_image=torch.ones(4))
    assert torch.equal(kept[:, :9], token_mask(expected, mask, has_image=torch.ones(4)))


def test_half_precision_is_computed_in_single():
    parts = [torch.rand(3, 5).bfloat16() for _ in range(3)]
    mask = torch.ones(3, 5)
    got = token_scores(*parts, mask)
    assert got.dtype == torch.float32
    assert torch.equal(got, token_scores(*(part.float() for part in parts), mask))


@pytest.mark.parametrize("position", range(3))
def test_scores_refuse_wrong_tensors(position):
    parts = [torch.rand(2, 3) for _ in range(3)]
    parts[position] = torch.rand(2, 4)
    name = ("divergence", "entropy_change", "entropy")[position]
    with pytest.raises(ValueError, match=f"it must equal {name}'s"):
        token_scores(*parts, torch.ones(2, 3))


def test_parameters_are_checked():
    parts, mask = [torch.rand(2, 3) for _ in range(3)], torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"divergence_share is 1\.5"):
        token_scores(*parts, mask, divergence_share=1.5)
    with pytest.raises(ValueError, match="top_fraction is 0"):
        token_mask(parts[0], mask, has_image=torch.ones(2), top_fraction=0)
    with pytest.raises(ValueError, match="has_image has shape"):
        token_mask(parts[0], mask, has_image=torch.ones(3))
