# SPDX-License-Identifier: Apache-2.0
"""Properties of PEPO's token weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.operations import CountOperations
from support.reference_pepo import pepo_weights

from verl_ext.methods.pepo import schedule, token_weights


@st.composite
def batches(draw):
    """Scores on a grid (so that ties occur), a mask with holes and empty rows, rows without an image."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 12))

    def matrix(values):
        row = st.lists(values, min_size=columns, max_size=columns)
        return torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)))

    similarity = matrix(st.integers(-10, 10)).double() / 10.0
    entropy = matrix(st.integers(0, 20)).double() / 4.0
    has_image = torch.tensor(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    return similarity, entropy, matrix(st.booleans()), has_image


SETTINGS = st.fixed_dictionaries(
    {
        "gate_alpha": st.sampled_from([0.0, 0.05, 0.18, 1.0]),
        "temperature": st.sampled_from([0.01, 0.5, 1.8]),
        "normalised": st.booleans(),
    }
)


def example(rows=4, columns=9, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    entropy = 3.0 * torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, columns, generator=generator) < 0.7
    mask[:, 0] = True
    return similarity.to(dtype), entropy.to(dtype), mask, torch.ones(rows, dtype=torch.bool)


def weigh(batch, **parameters):
    similarity, entropy, mask, has_image = batch
    return token_weights(similarity, entropy, mask, has_image=has_image, **parameters)


@settings(max_examples=150)
@given(batches(), SETTINGS)
def test_matches_plain_python(batch, parameters):
    torch.testing.assert_close(weigh(batch, **parameters), pepo_weights(*batch, **parameters), atol=1e-9, rtol=1e-9)


@settings(max_examples=80)
@given(batches(), SETTINGS, st.sampled_from([math.nan, math.inf, -math.inf, 1e30]))
def test_finite_and_blind_to_what_is_outside_the_mask(batch, parameters, garbage):
    similarity, entropy, mask, has_image = batch
    similarity, entropy = similarity.float(), entropy.float()
    weights = weigh((similarity, entropy, mask, has_image), **parameters)
    dirty = [values.masked_fill(~mask, garbage) for values in (similarity, entropy)]
    assert torch.equal(weigh((*dirty, mask, has_image), **parameters), weights)
    assert weights.dtype == torch.float32
    assert weights.isfinite().all()
    assert (weights >= 0.0).all()
    assert (weights[~mask] == 0.0).all()
    torch.testing.assert_close(weights.sum(-1), mask.sum(-1).float(), atol=1e-4, rtol=1e-5)


@settings(max_examples=60)
@given(batches(), SETTINGS, st.randoms(use_true_random=False))
def test_order_padding_and_split_do_not_matter(batch, parameters, random):
    similarity, entropy, mask, has_image = batch
    weights = weigh(batch, **parameters)
    close = {"atol": 1e-12, "rtol": 1e-12}
    order = random.sample(range(len(mask)), len(mask))
    torch.testing.assert_close(weigh([x[order] for x in batch], **parameters), weights[order], **close)
    order = random.sample(range(mask.shape[1]), mask.shape[1])
    columns = (similarity[:, order], entropy[:, order], mask[:, order], has_image)
    torch.testing.assert_close(weigh(columns, **parameters), weights[:, order], **close)
    for row in range(len(mask)):
        alone = weigh([x[row : row + 1] for x in batch], **parameters)
        torch.testing.assert_close(alone, weights[row : row + 1], **close)
    padded = [
        torch.nn.functional.pad(x, (2, 3), value=value) for x, value in zip(batch[:3], (9.0, 9.0, 0), strict=True)
    ]
    torch.testing.assert_close(
        weigh((*padded, has_image), **parameters), torch.nn.functional.pad(weights, (2, 3)), **close
    )


def test_rows_without_an_image_are_neutral():
    similarity, entropy, mask, has_image = example()
    has_image[1] = False
    similarity[1], entropy[2, 0] = math.nan, 5.0
    weights = weigh((similarity, entropy, mask, has_image))
    assert torch.equal(weights[1], mask[1].double())
    assert not torch.equal(weights[0], mask[0].double())


def test_empty_rows_are_zero():
    similarity, entropy, mask, has_image = example()
    mask[0], mask[1], has_image[1] = False, False, False
    weights = weigh((similarity, entropy, mask, has_image))
    assert torch.equal(weights[:2], torch.zeros_like(weights[:2]))
    assert torch.equal(weigh((similarity, entropy, mask & False, has_image)), torch.zeros_like(weights))


def test_rows_of_one_token():
    similarity, entropy, mask, has_image = example()
    mask[:] = False
    mask[range(4), [0, 3, 8, 5]] = True
    assert torch.equal(weigh((similarity, entropy, mask, has_image)), mask.double())


def test_constant_scores_are_neutral():
    _, _, mask, has_image = example()
    similarity, entropy = torch.full((4, 9), 0.3), torch.full((4, 9), 1.7)
    weights = weigh((similarity, entropy, mask, has_image))
    torch.testing.assert_close(weights, mask.float(), atol=1e-6, rtol=0.0)


def test_constant_similarity_differs_through_the_gate_only():
    _, entropy, mask, has_image = example()
    similarity = torch.full_like(entropy, 0.5)
    weights = weigh((similarity, entropy, mask, has_image))
    ratio = weights[mask].max() / weights[mask].min()
    assert 1.001 < ratio <= math.exp(2 * 0.05 * 0.5 / 1.8)
    highest = entropy.masked_fill(~mask, -1.0).argmax(-1)
    assert torch.equal(weights.argmax(-1), highest)


def test_no_gate_is_a_softmax_of_the_similarity():
    similarity, entropy, mask, has_image = example()
    weights = weigh((similarity, entropy, mask, has_image), gate_alpha=0.0, temperature=0.7)
    expected = (similarity / 0.7).masked_fill(~mask, -math.inf).softmax(-1) * mask.sum(-1, keepdim=True)
    torch.testing.assert_close(weights, expected)


def test_normalised_contrasts_more_and_ignores_offset_and_scale():
    similarity, entropy, mask, has_image = example()
    narrow = 0.4 + 0.1 * similarity
    paper = weigh((narrow, entropy, mask, has_image))
    contrast = weigh((narrow, entropy, mask, has_image), normalised=True)
    assert contrast.max() > paper.max()
    torch.testing.assert_close(contrast, weigh((similarity, entropy, mask, has_image), normalised=True))


def test_large_scores_do_not_overflow():
    similarity, entropy, mask, has_image = example(dtype=torch.float32)
    for scale in (-1e4, 1e4):
        weights = weigh((similarity * scale, entropy, mask, has_image), temperature=0.01)
        assert weights.isfinite().all()
        torch.testing.assert_close(weights.sum(-1), mask.sum(-1).float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_input_is_computed_in_float32(dtype):
    batch = example(columns=1001, dtype=dtype)
    weights = weigh(batch)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.double(), pepo_weights(*batch), atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(weights.sum(-1), batch[2].sum(-1).float(), atol=2e-3, rtol=0.0)


def test_one_float64_signal_makes_the_result_float64():
    similarity, entropy, mask, has_image = example()
    for batch in ((similarity.float(), entropy), (similarity, entropy.float())):
        assert weigh((*batch, mask, has_image)).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.bfloat16])
def test_masks_of_any_dtype(dtype):
    similarity, entropy, mask, has_image = example()
    has_image[2] = False
    expected = weigh((similarity, entropy, mask, has_image))
    assert torch.equal(weigh((similarity, entropy, mask.to(dtype), has_image.to(dtype))), expected)
    assert torch.equal(schedule(expected, mask.to(dtype), 0.3), schedule(expected, mask, 0.3))


def test_is_detached_and_leaves_its_inputs_alone():
    similarity, entropy, mask, has_image = example()
    mask[1], has_image[2] = False, False
    inputs = similarity.requires_grad_(), entropy.requires_grad_(), mask, has_image
    copies = [x.detach().clone() for x in inputs]
    weights = weigh(inputs)
    scheduled = schedule(weights.clone().requires_grad_(), mask, 0.5)
    assert not weights.requires_grad
    assert not scheduled.requires_grad
    assert all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True))


def test_no_columns_and_no_rows():
    for shape in ((3, 0), (0, 4)):
        empty = torch.zeros(shape)
        assert token_weights(empty, empty, empty, has_image=torch.ones(shape[0])).shape == shape
        assert schedule(empty, empty, 0.5).shape == shape


def test_never_reads_a_value_on_the_host():
    values, has_image = torch.zeros(2, 3, device="meta"), torch.ones(2, dtype=torch.bool, device="meta")
    weights = token_weights(values, values, values, has_image=has_image)
    assert schedule(weights, values, 0.5).shape == (2, 3)


def test_loops_over_neither_rows_nor_tokens():
    counts = []
    for rows, columns in ((2, 5), (20, 60)):
        batch = example(rows, columns)
        with CountOperations() as operations:
            schedule(weigh(batch), batch[2], 0.5)
        counts.append(operations.count)
    assert counts[0] == counts[1]


def test_schedule_starts_neutral_and_ends_at_the_weights():
    batch = example()
    mask, weights = batch[2], weigh(batch)
    assert torch.equal(schedule(weights, mask, 0.0), mask.double())
    assert torch.equal(schedule(weights, mask, 1.0), weights)
    torch.testing.assert_close(schedule(weights, mask, 0.25), (0.75 + 0.25 * weights) * mask)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_schedule_keeps_the_mass_and_ignores_what_is_outside(progress):
    batch = example(dtype=torch.float32)
    mask, weights = batch[2], weigh(batch)
    scheduled = schedule(weights.masked_fill(~mask, math.nan), mask, progress)
    assert torch.equal(scheduled[~mask], torch.zeros_like(scheduled[~mask]))
    torch.testing.assert_close(scheduled.sum(-1), mask.sum(-1).float())
    assert schedule(weights.bfloat16(), mask, progress).dtype == torch.float32


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"visual_similarity": torch.zeros(6)}, r"^visual_similarity has shape \(6,\)"),
        ({"visual_similarity": torch.zeros(2, 3).long()}, r"^visual_similarity has shape .* dtype torch.int64"),
        (
            {"visual_similarity": torch.zeros(2, 4)},
            r"^response_mask has shape \(2, 3\); .* visual_similarity's \(2, 4\)",
        ),
        ({"entropy": torch.zeros(2, 3, 1)}, r"^entropy has shape \(2, 3, 1\)"),
        ({"entropy": torch.zeros(2, 3).bool()}, r"^entropy has shape .* dtype torch.bool"),
        ({"entropy": torch.zeros(3, 3)}, r"^response_mask has shape \(2, 3\); .* entropy's \(3, 3\)"),
        ({"response_mask": torch.ones(2, 2)}, r"^response_mask has shape \(2, 2\)"),
        ({"has_image": torch.ones(3)}, r"^has_image has shape \(3,\)"),
        ({"has_image": torch.ones(2, 1)}, r"^has_image has shape \(2, 1\)"),
        ({"gate_alpha": -0.1}, r"^gate_alpha is -0.1"),
        ({"gate_alpha": math.nan}, r"^gate_alpha is nan"),
        ({"gate_alpha": math.inf}, r"^gate_alpha is inf"),
        ({"temperature": 0.0}, r"^temperature is 0.0"),
        ({"temperature": -1.8}, r"^temperature is -1.8"),
        ({"temperature": math.nan}, r"^temperature is nan"),
    ],
)
def test_rejects_wrong_arguments(changed, message):
    values = torch.zeros(2, 3)
    arguments = {"visual_similarity": values, "entropy": values, "response_mask": values, "has_image": torch.ones(2)}
    with pytest.raises(ValueError, match=message):
        token_weights(**{**arguments, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": torch.zeros(6)}, r"^weights has shape \(6,\)"),
        ({"weights": torch.zeros(2, 3).long()}, r"^weights has shape .* dtype torch.int64"),
        ({"response_mask": torch.ones(2, 2)}, r"^response_mask has shape \(2, 2\); .* weights's"),
        ({"progress": -0.1}, r"^progress is -0.1"),
        ({"progress": 1.1}, r"^progress is 1.1"),
        ({"progress": math.nan}, r"^progress is nan"),
    ],
)
def test_schedule_rejects_wrong_arguments(changed, message):
    arguments = {"weights": torch.zeros(2, 3), "response_mask": torch.ones(2, 3), "progress": 0.5}
    with pytest.raises(ValueError, match=message):
        schedule(**{**arguments, **changed})
