# SPDX-License-Identifier: Apache-2.0
"""Properties of PGPO's token weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference
from support.operations import CountOperations

from verl_ext.methods.pgpo import token_weights

SNAPSHOT = {"threshold_mode": "quantile", "low_weight_floor": 0.1, "conserve_mass": False}


@st.composite
def batches(draw):
    """Scores on a grid (so that ties occur) and a mask with holes, empty rows and rows of one token."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    row = st.lists(st.integers(0, 40), min_size=columns, max_size=columns)
    mask_row = st.lists(st.booleans(), min_size=columns, max_size=columns)
    scores = draw(st.lists(row, min_size=rows, max_size=rows))
    mask = draw(st.lists(mask_row, min_size=rows, max_size=rows))
    return torch.tensor(scores, dtype=torch.float64) / 4.0, torch.tensor(mask)


SETTINGS = st.fixed_dictionaries(
    {
        "threshold": st.sampled_from([0.0, 0.25, 0.4, 0.7, 1.0]),
        "boost": st.sampled_from([0.0, 1.0, 2.0]),
        "threshold_mode": st.sampled_from(["absolute", "quantile"]),
        "low_weight_floor": st.sampled_from([0.0, 0.1]),
        "conserve_mass": st.booleans(),
    }
)


def expected_weights(scores, mask, **settings):
    expected = torch.zeros_like(scores)
    for row in range(len(scores)):
        if mask[row].any():
            expected[row, mask[row]] = torch.tensor(
                reference.pgpo_weights(scores[row, mask[row]].tolist(), **settings), dtype=scores.dtype
            )
    return expected


@settings(max_examples=120)
@given(batches(), SETTINGS)
def test_matches_plain_python(batch, parameters):
    scores, mask = batch
    torch.testing.assert_close(
        token_weights(scores, mask, **parameters), expected_weights(scores, mask, **parameters), atol=1e-9, rtol=1e-9
    )


@settings(max_examples=60)
@given(batches(), SETTINGS)
def test_finite_non_negative_and_zero_outside_the_mask(batch, parameters):
    scores, mask = batch
    weights = token_weights(scores.float().masked_fill(~mask, math.nan), mask, **parameters)
    assert weights.dtype == torch.float32
    assert weights.isfinite().all()
    assert (weights >= 0.0).all()
    assert (weights[~mask] == 0.0).all()


@settings(max_examples=60)
@given(batches(), SETTINGS)
def test_mass_is_conserved(batch, parameters):
    scores, mask = batch
    weights = token_weights(scores.float(), mask, **(parameters | {"conserve_mass": True}))
    torch.testing.assert_close(weights.sum(-1), mask.sum(-1).float(), atol=1e-5, rtol=1e-5)


@settings(max_examples=40)
@given(batches(), SETTINGS, st.randoms(use_true_random=False))
def test_row_order_does_not_matter(batch, parameters, random):
    scores, mask = batch
    order = random.sample(range(len(scores)), len(scores))
    torch.testing.assert_close(
        token_weights(scores[order], mask[order], **parameters),
        token_weights(scores, mask, **parameters)[order],
        atol=1e-12,
        rtol=1e-12,
    )


@settings(max_examples=40)
@given(batches(), SETTINGS)
def test_padding_does_not_matter(batch, parameters):
    scores, mask = batch
    padded = torch.nn.functional.pad(scores, (2, 3), value=math.nan)
    padded_mask = torch.nn.functional.pad(mask, (2, 3), value=False)
    weights = token_weights(padded, padded_mask, **parameters)
    torch.testing.assert_close(weights[:, 2:-3], token_weights(scores, mask, **parameters), atol=1e-12, rtol=1e-12)


@settings(max_examples=40)
@given(batches(), SETTINGS)
def test_inputs_are_not_modified(batch, parameters):
    scores, mask = batch
    copies = scores.clone(), mask.clone()
    token_weights(scores, mask, **parameters)
    assert torch.equal(scores, copies[0])
    assert torch.equal(mask, copies[1])


def test_weights_are_detached():
    scores = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
    assert not token_weights(scores, torch.ones(1, 3)).requires_grad


def test_bfloat16_is_upcast():
    scores = torch.tensor([[0.01, 0.3, 1.7, 5.1]], dtype=torch.bfloat16)
    weights = token_weights(scores, torch.ones(1, 4))
    assert weights.dtype == torch.float32
    assert torch.equal(weights, token_weights(scores.float(), torch.ones(1, 4)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bfloat16])
def test_mask_dtype_does_not_matter(dtype):
    scores = torch.tensor([[0.0, 1.0, 9.0, 2.0]])
    mask = torch.tensor([[True, True, False, True]])
    assert torch.equal(token_weights(scores, mask.to(dtype)), token_weights(scores, mask))


@pytest.mark.parametrize("parameters", [{}, SNAPSHOT])
def test_rows_without_range_are_left_alone(parameters):
    scores = torch.tensor([[3.0, 7.0, 1.0], [3.0, 7.0, 1.0], [2.0, 2.0, 2.0], [0.0, 1e-9, 5e-9], [2.0, 9.0, 2.0]])
    mask = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1], [1, 0, 1]])
    assert torch.equal(token_weights(scores, mask, **parameters), mask.float())


def test_two_tokens_share_the_mass():
    weights = token_weights(torch.tensor([[5.0, 0.1]]), torch.ones(1, 2))
    assert torch.equal(weights, torch.tensor([[2.0, 0.0]]))


def test_snapshot_of_two_tokens_puts_the_threshold_on_the_lower():
    weights = token_weights(torch.tensor([[5.0, 0.1]]), torch.ones(1, 2), **SNAPSHOT)
    assert torch.equal(weights, torch.tensor([[3.0, 1.0]]))


def test_quantile_index_is_computed_in_double_precision():
    count, threshold = 100, 0.29
    assert math.floor(count * threshold) == 28
    assert (torch.tensor(count) * threshold).floor() == 29
    scores = torch.expm1(torch.arange(count, dtype=torch.float64))[None]
    weights = token_weights(scores, torch.ones(1, count), threshold=threshold, **SNAPSHOT)
    assert weights[0, 28].item() == pytest.approx(1.0)


@pytest.mark.parametrize("parameters", [{}, SNAPSHOT])
def test_work_does_not_loop_over_rows_or_tokens(parameters):
    counts = []
    for shape in [(2, 3), (17, 101)]:
        scores, mask = torch.rand(shape), torch.ones(shape)
        with CountOperations() as counter:
            token_weights(scores, mask, **parameters)
        counts.append(counter.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("parameters", [{}, SNAPSHOT])
def test_never_reads_a_value_on_the_host(parameters):
    scores = torch.zeros(2, 3, device="meta")
    assert token_weights(scores, scores, **parameters).shape == (2, 3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"threshold": 1.5}, r"threshold is 1\.5; it must be in \[0, 1\]"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"boost": -1.0}, r"boost is -1\.0"),
        ({"boost": math.inf}, "boost is inf"),
        ({"threshold_mode": "median"}, r"threshold_mode is 'median'; .*absolute.*quantile"),
        ({"low_weight_floor": 2.0}, r"low_weight_floor is 2\.0"),
        ({"visual_dependency": torch.zeros(3)}, r"visual_dependency has shape \(3,\)"),
        ({"visual_dependency": torch.zeros(2, 3, dtype=torch.long)}, r"visual_dependency .*torch\.int64"),
        ({"response_mask": torch.ones(2, 4)}, r"response_mask has shape \(2, 4\).*\(2, 3\)"),
    ],
)
def test_rejects_bad_arguments(parameters, message):
    arguments = {"visual_dependency": torch.zeros(2, 3), "response_mask": torch.ones(2, 3)} | parameters
    with pytest.raises(ValueError, match=message):
        token_weights(**arguments)
