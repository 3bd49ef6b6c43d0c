# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import reference

from verl_ext.methods.tor import token_weights

IMAGES = torch.tensor([True])


def weights(entropy, difference, mask=None, has_image=None, **how):
    entropy, difference = torch.tensor(entropy), torch.tensor(difference)
    mask = torch.ones_like(entropy, dtype=torch.bool) if mask is None else torch.tensor(mask).bool()
    has_image = torch.ones(len(entropy), dtype=torch.bool) if has_image is None else torch.tensor(has_image)
    return token_weights(entropy, difference, mask, has_image=has_image, **how)


def test_reasoning_first_then_perception():
    entropy = [[9.0, 8.0, 0.1, 0.2, 0.3], [0.4, 0.5, 0.6, 7.0, 0.7]]
    difference = [[5.0, 0.1, 6.0, 0.2, 0.3], [4.0, 0.4, 0.5, 0.6, 0.7]]
    assert weights(entropy, difference).tolist() == [[1.0, 1.0, 0.5, 0.0, 0.0], [0.5, 0.0, 0.0, 1.0, 0.0]]


def plain(entropy, difference, mask, images, entropy_fraction, visual_fraction):
    """One token after another."""
    ragged = [
        [[v for v, kept in zip(*row, strict=True) if kept] for row in zip(values, mask, strict=True)]
        for values in (entropy, difference)
    ]
    rows = reference.tor_weights(*ragged, images, entropy_fraction, visual_fraction)
    return [[weights.pop(0) if kept else 0.0 for kept in row] for row, weights in zip(mask, rows, strict=True)]


@given(st.data())
def test_against_one_token_after_another(data):
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))

    def grid(values):
        return data.draw(st.lists(st.lists(values, min_size=columns, max_size=columns), min_size=rows, max_size=rows))

    entropy, difference = grid(st.integers(0, 4).map(float)), grid(st.integers(0, 4).map(float))
    mask, images = grid(st.booleans()), data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    fractions = [data.draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0])) for _ in range(2)]
    got = weights(entropy, difference, mask, images, entropy_fraction=fractions[0], visual_fraction=fractions[1])
    assert got.tolist() == plain(entropy, difference, mask, images, *fractions)


@given(st.integers(0, 2**31))
def test_order_padding_and_garbage_change_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    entropy, difference = torch.rand(6, 10, generator=generator), torch.rand(6, 10, generator=generator)
    mask = torch.rand(6, 10, generator=generator) > 0.3
    images = torch.rand(6, generator=generator) > 0.2
    expected = token_weights(entropy, difference, mask, has_image=images)
    order = torch.randperm(6, generator=generator)
    shuffled = token_weights(entropy[order], difference[order], mask[order], has_image=images[order])
    assert torch.equal(shuffled, expected[order])
    garbage = torch.where(mask, entropy, torch.nan), torch.where(mask, difference, torch.inf)
    wide = [torch.nn.functional.pad(t, (0, 3), value=torch.nan) for t in garbage]
    padded = token_weights(*wide, torch.nn.functional.pad(mask, (0, 3)), has_image=images)
    assert torch.equal(padded[:, :10], expected)
    assert (padded[:, 10:] == 0).all()


def test_ties_that_do_not_fit_are_left_out():
    assert weights([[1.0, 1.0, 1.0, 0.0]], [[0.0] * 4], entropy_fraction=0.5).tolist() == [[0.0] * 4]
    assert weights([[1.0, 1.0, 0.0, 0.0]], [[0.0] * 4], entropy_fraction=0.5).tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_rows_without_an_image_are_neutral_and_not_counted():
    got = weights([[1.0, 2.0], [9.0, 9.0]], [[0.0, 1.0], [9.0, 9.0]], has_image=[True, False])
    assert got.tolist() == [[0.0, 1.0], [1.0, 1.0]]


def test_half_precision_is_computed_in_single():
    entropy = torch.rand(3, 5).bfloat16()
    mask, images = torch.ones(3, 5, dtype=torch.long), torch.ones(3)
    got = token_weights(entropy, entropy, mask, has_image=images)
    assert got.dtype == torch.float32
    assert torch.equal(got, token_weights(entropy.float(), entropy.float(), mask, has_image=images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entropy": torch.rand(3)}, "entropy has shape"),
        ({"visual_difference": torch.rand(2, 3).long()}, "visual_difference has shape"),
        ({"response_mask": torch.ones(2, 4)}, "response_mask has shape"),
        ({"has_image": torch.ones(3)}, "has_image has shape"),
        ({"entropy_fraction": 1.5}, "entropy_fraction is 1.5"),
        ({"visual_fraction": -0.5}, "visual_fraction is -0.5"),
        ({"reasoning_weight": math.nan}, "reasoning_weight is nan"),
        ({"perception_weight": -1.0}, "perception_weight is -1.0"),
        ({"other_weight": math.inf}, "other_weight is inf"),
    ],
)
def test_refusals(change, message):
    given = {
        "entropy": torch.rand(2, 3),
        "visual_difference": torch.rand(2, 3),
        "response_mask": torch.ones(2, 3),
        "has_image": torch.ones(2),
        **change,
    }
    tensors = [given.pop(name) for name in ("entropy", "visual_difference", "response_mask")]
    with pytest.raises(ValueError, match=message):
        token_weights(*tensors, **given)
