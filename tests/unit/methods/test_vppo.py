# SPDX-License-Identifier: Apache-2.0
"""Properties of VPPO's token mask and trajectory factors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference
from support.operations import CountOperations

from verl_ext.methods.vppo import token_mask, top_count, trajectory_factors

FRACTIONS = st.sampled_from([0.1, 0.3, 0.4, 0.6, 0.9, 1.0])
SHAPING = st.fixed_dictionaries(
    {"floor": st.sampled_from([0.0, 0.5, 0.9, 1.0]), "ceiling": st.sampled_from([None, 1.0, 1.1, 3.0])}
)
IMAGE = {"has_image": torch.tensor([True])}


@st.composite
def batches(draw):
    """Scores on a grid (so that ties occur), a mask with holes, empty rows and rows of one token, and the images."""
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    cells = rows * columns
    scores = torch.tensor(draw(st.lists(st.integers(0, 12), min_size=cells, max_size=cells)), dtype=torch.float64) / 4.0
    mask = torch.tensor(draw(st.lists(st.booleans(), min_size=cells, max_size=cells)))
    has_image = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=rows, max_size=rows))
    return scores.view(rows, columns), mask.view(rows, columns), torch.tensor(has_image)


def both(scores, mask, has_image, top_fraction=0.4, **shaping):
    return (
        token_mask(scores, mask, has_image=has_image, top_fraction=top_fraction),
        trajectory_factors(scores, mask, has_image=has_image, **shaping),
    )


def valid_scores(scores, mask):
    return [row[valid].tolist() for row, valid in zip(scores, mask, strict=True)]


@settings(max_examples=150)
@given(batches(), FRACTIONS)
def test_mask_matches_plain_python(batch, top_fraction):
    scores, mask, has_image = batch
    kept = token_mask(scores, mask, has_image=has_image, top_fraction=top_fraction)
    for row, values in enumerate(valid_scores(scores, mask)):
        expected = reference.vppo_mask(values, has_image[row].item(), top_fraction)
        assert kept[row, mask[row]].tolist() == expected


@settings(max_examples=150)
@given(batches(), SHAPING)
def test_factors_match_plain_python(batch, shaping):
    scores, mask, has_image = batch
    factors = trajectory_factors(scores, mask, has_image=has_image, **shaping)
    expected = reference.vppo_factors(valid_scores(scores, mask), has_image.tolist(), **shaping)
    torch.testing.assert_close(factors, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=1e-12)


@settings(max_examples=60)
@given(batches(), FRACTIONS, SHAPING)
def test_garbage_outside_the_mask_reaches_nothing(batch, top_fraction, shaping):
    scores, mask, has_image = batch
    expected = both(scores, mask, has_image, top_fraction, **shaping)
    for garbage in (math.nan, math.inf, -math.inf, 1e30):
        got = both(scores.masked_fill(~mask, garbage), mask, has_image, top_fraction, **shaping)
        assert all(torch.equal(*pair) for pair in zip(got, expected, strict=True))


@settings(max_examples=60)
@given(batches(), FRACTIONS, SHAPING)
def test_range_of_the_results(batch, top_fraction, shaping):
    scores, mask, has_image = batch
    kept, factors = both(scores.float(), mask, has_image, top_fraction, **shaping)
    assert kept.dtype == factors.dtype == torch.float32
    assert ((kept == 0.0) | (kept == 1.0)).all()
    assert (kept[~mask] == 0.0).all()
    assert factors.isfinite().all()
    assert (factors >= min(shaping["floor"], 1.0) - 1e-6).all()
    assert (factors[~has_image | ~mask.any(-1)] == 1.0).all()


@settings(max_examples=80)
@given(batches(), st.sampled_from([0.0, 0.5, 0.9]))
def test_factors_average_one(batch, floor):
    scores, mask, has_image = batch
    factors = trajectory_factors(scores, mask, has_image=has_image, floor=floor)
    torch.testing.assert_close(factors.mean(), torch.ones((), dtype=torch.float64), atol=1e-6, rtol=0.0)
    usable = has_image & mask.any(-1)
    if usable.any():
        torch.testing.assert_close(factors[usable].mean(), torch.ones((), dtype=torch.float64), atol=1e-6, rtol=0.0)


@settings(max_examples=60)
@given(batches(), FRACTIONS, SHAPING, st.randoms(use_true_random=False))
def test_row_order_padding_and_empty_rows_do_not_matter(batch, top_fraction, shaping, random):
    scores, mask, has_image = batch
    order = random.sample(range(len(scores)), len(scores))
    moved = torch.nn.functional.pad(scores[order], (2, 3, 0, 2), value=math.nan)
    moved_mask = torch.nn.functional.pad(mask[order], (2, 3, 0, 2), value=False)
    moved_images = torch.cat([has_image[order], torch.tensor([True, False])])
    kept, factors = both(moved, moved_mask, moved_images, top_fraction, **shaping)
    expected = both(scores, mask, has_image, top_fraction, **shaping)
    assert torch.equal(kept[:-2, 2:-3], expected[0][order])
    torch.testing.assert_close(factors[:-2], expected[1][order], atol=1e-9, rtol=1e-9)
    assert (kept[-2:] == 0.0).all()
    assert (factors[-2:] == 1.0).all()


@settings(max_examples=40)
@given(batches(), FRACTIONS, st.integers(1, 4))
def test_split_does_not_matter_to_the_mask(batch, top_fraction, size):
    parts = zip(*(tensor.split(size) for tensor in batch), strict=True)
    kept = [token_mask(s, m, has_image=h, top_fraction=top_fraction) for s, m, h in parts]
    assert torch.equal(torch.cat(kept), both(*batch, top_fraction)[0])


@settings(max_examples=40)
@given(batches(), FRACTIONS)
def test_inputs_are_not_modified(batch, top_fraction):
    copies = [tensor.clone() for tensor in batch]
    both(*batch, top_fraction, ceiling=1.1)
    assert all(torch.equal(*pair) for pair in zip(batch, copies, strict=True))


@settings(max_examples=40)
@given(batches(), st.sampled_from([torch.bfloat16, torch.float16]))
def test_half_precision_is_upcast(batch, dtype):
    scores, mask, has_image = batch
    scores = (scores + 0.123).to(dtype)
    for got, expected in zip(both(scores, mask, has_image), both(scores.float(), mask, has_image), strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, expected)


@settings(max_examples=40)
@given(batches(), st.sampled_from([torch.int64, torch.uint8, torch.float32, torch.bfloat16]))
def test_mask_dtype_does_not_matter(batch, dtype):
    scores, mask, has_image = batch
    for got, expected in zip(
        both(scores, mask.to(dtype), has_image.to(dtype)), both(scores, mask, has_image), strict=True
    ):
        assert torch.equal(got, expected)


def test_any_non_zero_mask_value_is_valid():
    scores, mask = torch.tensor([[0.5, 2.0, 1.0, 9.0], [3.0, 1.0, 0.0, 0.0]]), torch.tensor([[2.0, -1.0, 0.5, 0.0]] * 2)
    for got, expected in zip(both(scores, mask, mask[:, 0]), both(scores, mask != 0, torch.ones(2)), strict=True):
        assert torch.equal(got, expected)


def test_results_are_detached():
    scores = torch.tensor([[0.0, 1.0], [5.0, 2.0]], requires_grad=True)
    assert not any(result.requires_grad for result in both(scores, torch.ones(2, 2), torch.ones(2)))


@pytest.mark.parametrize("top_fraction", [0.1, 0.3, 0.4, 0.6, 0.9, 0.999, 1.0])
def test_number_of_kept_tokens(top_fraction):
    length = torch.arange(301)
    mask = torch.arange(300) < length[:, None]
    scores = torch.rand(301, 300, generator=torch.Generator().manual_seed(0))
    kept = token_mask(scores, mask, has_image=torch.ones(301), top_fraction=top_fraction)
    assert torch.equal(kept.sum(-1).long(), top_count(length, top_fraction))


@pytest.mark.parametrize("columns", [255, 256, 500])
@pytest.mark.parametrize("top_fraction", [0.3, 0.6])
def test_full_rows_keep_as_many_as_padded_ones(columns, top_fraction):
    scores = torch.rand(3, columns, generator=torch.Generator().manual_seed(0))
    kept = token_mask(scores, torch.ones(3, columns), has_image=torch.ones(3), top_fraction=top_fraction)
    assert kept.sum(-1).tolist() == [top_count(torch.tensor(columns), top_fraction).item()] * 3


def test_earlier_token_first_among_equals():
    scores = torch.tensor([[1.0, 2.0, 1.0, 0.0, 1.0]])
    kept = token_mask(scores, torch.ones(1, 5), top_fraction=0.5, **IMAGE)
    assert kept.tolist() == [[1.0, 1.0, 1.0, 0.0, 0.0]]


def test_most_dependent_tokens_are_kept():
    scores = torch.tensor([[0.1, 3.0, 0.2, 9.0, 0.3, 0.0]])
    mask = torch.tensor([[1, 1, 1, 0, 1, 1]])
    assert token_mask(scores, mask, **IMAGE).tolist() == [[0.0, 1.0, 0.0, 0.0, 1.0, 0.0]]


def test_rows_without_an_image_are_left_alone():
    scores = torch.tensor([[1.0, 2.0, 8.0], [0.0, 0.0, 0.1], [5.0, 7.0, 3.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]])
    has_image = torch.tensor([True, False, True])
    kept, factors = both(scores, mask, has_image)
    assert torch.equal(kept[1], mask[1].float())
    assert factors[1] == 1.0
    assert torch.equal(factors[[0, 2]], trajectory_factors(scores[[0, 2]], mask[[0, 2]], has_image=torch.ones(2)))
    assert factors[[0, 2]].tolist() == pytest.approx([0.9, 1.1])


@pytest.mark.parametrize("scores", [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [0.0, 5e-9, 1e-8]])
def test_constant_scores_keep_every_token(scores):
    mask = torch.ones(1, 3)
    assert torch.equal(token_mask(torch.tensor([scores], dtype=torch.float64), mask, **IMAGE), mask.double())


def test_scores_that_differ_a_little_are_ranked():
    scores = torch.tensor([[0.0, 5e-9, 2e-8]], dtype=torch.float64)
    assert token_mask(scores, torch.ones(1, 3), **IMAGE).tolist() == [[0.0, 1.0, 1.0]]


def test_one_token_is_kept_and_none_is_none():
    kept, factors = both(torch.tensor([[4.0, 1.0], [4.0, 1.0]]), torch.tensor([[0, 1], [0, 0]]), torch.ones(2))
    assert kept.tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert factors.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("difference", [0.0, 9e-7])
def test_equal_means_give_factor_one(difference):
    scores = torch.tensor([[1.0, 3.0], [2.0, 2.0 + difference]], dtype=torch.float64)
    assert trajectory_factors(scores, torch.ones(2, 2), has_image=torch.ones(2)).tolist() == [1.0, 1.0]


def test_means_that_differ_a_little_are_ranked():
    scores = torch.tensor([[2.0, 2.0], [2.0, 2.0 + 3e-6]], dtype=torch.float64)
    factors = trajectory_factors(scores, torch.ones(2, 2), has_image=torch.ones(2))
    assert factors.tolist() == pytest.approx([0.9, 1.1])


@pytest.mark.parametrize("has_image", [[True], [False]])
def test_one_response_has_factor_one(has_image):
    factors = trajectory_factors(torch.tensor([[1.0, 9.0]]), torch.ones(1, 2), has_image=torch.tensor(has_image))
    assert factors.tolist() == [1.0]


def test_empty_rows_shift_nobody():
    scores = torch.tensor([[4.0, 4.0], [6.0, 6.0], [0.0, 0.0]])
    factors = trajectory_factors(scores, torch.tensor([[1, 1], [1, 0], [0, 0]]), has_image=torch.ones(3))
    assert factors.tolist() == pytest.approx([0.9, 1.1, 1.0])


def test_all_masked():
    kept, factors = both(torch.full((2, 3), math.nan), torch.zeros(2, 3), torch.ones(2))
    assert (kept == 0.0).all()
    assert (factors == 1.0).all()


def test_one_outlier_is_not_capped_unless_asked():
    scores = torch.tensor([[1.0]] + [[0.0]] * 9)
    mask, has_image = torch.ones(10, 1), torch.ones(10)
    assert trajectory_factors(scores, mask, has_image=has_image).max().item() == pytest.approx(1.9)
    capped = trajectory_factors(scores, mask, has_image=has_image, ceiling=1.2)
    assert capped.tolist() == pytest.approx([1.2] + [0.9] * 9)
    unreached = trajectory_factors(scores, mask, has_image=has_image, ceiling=5.0)
    assert unreached.max().item() == pytest.approx(1.9)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_batches(shape):
    kept, factors = both(torch.zeros(shape), torch.zeros(shape), torch.ones(shape[0]))
    assert kept.shape == shape
    assert factors.tolist() == [1.0] * shape[0]


def test_work_does_not_loop_over_rows_or_tokens():
    counts = []
    for shape in [(2, 3), (17, 101)]:
        scores, mask, has_image = torch.rand(shape), torch.ones(shape), torch.ones(shape[0])
        with CountOperations() as counter:
            both(scores, mask, has_image, ceiling=1.1)
        counts.append(counter.count)
    assert counts[0] == counts[1] > 0


def test_never_reads_a_value_on_the_host():
    scores = torch.zeros(2, 3, device="meta")
    kept, factors = both(scores, scores, scores[:, 0], ceiling=1.1)
    assert (kept.shape, factors.shape) == ((2, 3), (2,))


SHAPES = [
    ({"visual_dependency": torch.zeros(3)}, r"visual_dependency has shape \(3,\)"),
    ({"visual_dependency": torch.zeros(2, 3, dtype=torch.long)}, r"visual_dependency .*torch\.int64"),
    ({"response_mask": torch.ones(2, 4)}, r"response_mask has shape \(2, 4\).*visual_dependency's \(2, 3\)"),
    ({"has_image": torch.ones(3)}, r"has_image has shape \(3,\); it must be \(2,\)"),
    ({"has_image": torch.ones(2, 1)}, r"has_image has shape \(2, 1\); it must be \(2,\)"),
]


def arguments(changes):
    shapes = {"visual_dependency": torch.zeros(2, 3), "response_mask": torch.ones(2, 3), "has_image": torch.ones(2)}
    return shapes | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *SHAPES,
        ({"top_fraction": 0.0}, r"top_fraction is 0\.0; it must be in \(0, 1\]"),
        ({"top_fraction": 1.1}, r"top_fraction is 1\.1"),
        ({"top_fraction": math.nan}, "top_fraction is nan"),
    ],
)
def test_token_mask_rejects(changes, message):
    with pytest.raises(ValueError, match=message):
        token_mask(**arguments(changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *SHAPES,
        ({"floor": -0.1}, r"floor is -0\.1; it must be in \[0, 1\]"),
        ({"floor": 1.1}, r"floor is 1\.1"),
        ({"floor": math.nan}, "floor is nan"),
        ({"ceiling": 0.8}, r"ceiling is 0\.8; it must be None, or finite and >= floor \(0\.9\)"),
        ({"ceiling": math.inf}, "ceiling is inf"),
        ({"ceiling": math.nan}, "ceiling is nan"),
    ],
)
def test_trajectory_factors_rejects(changes, message):
    with pytest.raises(ValueError, match=message):
        trajectory_factors(**arguments(changes))
