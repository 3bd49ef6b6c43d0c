# SPDX-License-Identifier: Apache-2.0
"""Properties of VGPO's visual weights and of its token and trajectory factors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference
from support.operations import CountOperations

from verl_ext.methods.vgpo import compensation_ramp, token_factors, trajectory_factors, visual_weights

WEIGHTING = st.fixed_dictionaries(
    {
        "compensation": st.sampled_from([0.0, 0.3, 1.0]),
        "tail_start": st.sampled_from([0.0, 0.29, 0.5, 0.75, 1.0]),
        "gate_fraction": st.sampled_from([0.0, 0.2, 0.58, 1.0]),
        "offset": st.sampled_from(["official", "paper"]),
        "schedule": st.sampled_from(["linear", "exponential", "step"]),
    }
)
CLAMP = st.sampled_from([(0.0, math.inf), (0.1, 2.0), (0.9, 2.0), (0.8, 1.2), (1.0, 1.0)])


@st.composite
def batches(draw, lowest=-16):
    """Scores on a grid (so that ties occur), a mask with holes, empty rows and rows of one token, images, groups."""
    count, columns = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    cells = count * columns
    scores = draw(st.lists(st.integers(lowest, 16), min_size=cells, max_size=cells))
    scores = torch.tensor(scores, dtype=torch.float64).view(count, columns) / 16.0
    mask = torch.tensor(draw(st.lists(st.booleans(), min_size=cells, max_size=cells))).view(count, columns)
    has_image = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=count, max_size=count))
    groups = draw(st.lists(st.sampled_from([-3, 0, 7]), min_size=count, max_size=count))
    return scores, mask, torch.tensor(has_image), torch.tensor(groups)


def weight_batches():
    return batches(lowest=0)


def all_three(scores, mask, has_image, groups):
    weights = visual_weights(scores, mask)
    return (
        weights,
        token_factors(weights, mask, has_image=has_image),
        trajectory_factors(weights, mask, groups, has_image=has_image),
    )


def on_valid(values, mask):
    return [row[valid].tolist() for row, valid in zip(values, mask, strict=True)]


def close(got, expected, tolerance=1e-9):
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=got.dtype), atol=tolerance, rtol=tolerance)


@settings(max_examples=250)
@given(batches(), WEIGHTING)
def test_weights_match_plain_python(batch, weighting):
    scores, mask, _, _ = batch
    weights = visual_weights(scores, mask, **weighting)
    lowest = min((score for row in on_valid(scores, mask) for score in row), default=0.0)
    for row, values in enumerate(on_valid(scores, mask)):
        positions = mask[row].nonzero().flatten().tolist()
        close(weights[row, mask[row]], reference.vgpo_weights(values, lowest, positions, **weighting), 1e-6)


@settings(max_examples=100)
@given(weight_batches(), CLAMP)
def test_token_factors_match_plain_python(batch, clamp):
    weights, mask, has_image, _ = batch
    factors = token_factors(weights, mask, has_image=has_image, low=clamp[0], high=clamp[1])
    for row, values in enumerate(on_valid(weights, mask)):
        close(factors[row, mask[row]], reference.vgpo_token_factors(values, has_image[row].item(), *clamp))


@settings(max_examples=150)
@given(weight_batches(), CLAMP, st.booleans())
def test_trajectory_factors_match_plain_python(batch, clamp, recentre):
    weights, mask, has_image, groups = batch
    factors = trajectory_factors(
        weights, mask, groups, has_image=has_image, low=clamp[0], high=clamp[1], recentre=recentre
    )
    close(
        factors,
        reference.vgpo_trajectory_factors(
            on_valid(weights, mask), groups.tolist(), has_image.tolist(), *clamp, recentre
        ),
    )


@settings(max_examples=100)
@given(batches(), st.sampled_from(["linear", "exponential", "step"]), st.sampled_from([0.0, 0.3, 2.0]))
def test_ramp_matches_plain_python(batch, schedule, strength):
    mask = batch[1]
    ramp = compensation_ramp(mask, strength, schedule, dtype=torch.float64)
    assert (ramp[~mask] == 0.0).all()
    for row in range(len(mask)):
        positions = mask[row].nonzero().flatten().tolist()
        close(ramp[row, mask[row]], reference.vgpo_ramp(positions, strength, schedule))


@settings(max_examples=60)
@given(batches(), WEIGHTING)
def test_garbage_outside_the_mask_reaches_nothing(batch, weighting):
    scores, mask, has_image, groups = batch
    weights = visual_weights(scores, mask, **weighting)
    psi = token_factors(weights, mask, has_image=has_image)
    factors = trajectory_factors(weights, mask, groups, has_image=has_image)
    for garbage in (math.nan, math.inf, -math.inf, -1e30):
        assert torch.equal(visual_weights(scores.masked_fill(~mask, garbage), mask, **weighting), weights)
        dirty = weights.masked_fill(~mask, garbage)
        assert torch.equal(token_factors(dirty, mask, has_image=has_image), psi)
        assert torch.equal(trajectory_factors(dirty, mask, groups, has_image=has_image), factors)


@settings(max_examples=60)
@given(batches(), WEIGHTING)
def test_range_of_the_weights(batch, weighting):
    scores, mask, _, _ = batch
    weights = visual_weights(scores.float(), mask, **weighting)
    assert weights.dtype == torch.float32
    assert ((weights >= 0.0) & (weights <= 1.0)).all()
    assert (weights[~mask] == 0.0).all()


@settings(max_examples=60)
@given(weight_batches(), CLAMP)
def test_range_of_the_factors(batch, clamp):
    weights, mask, has_image, groups = batch
    low, high = clamp
    psi = token_factors(weights.float(), mask, has_image=has_image, low=low, high=high)
    factors = trajectory_factors(weights.float(), mask, groups, has_image=has_image, low=low, high=high)
    assert psi.dtype == factors.dtype == torch.float32
    assert (psi[~mask] == 1.0).all()
    assert (psi[~has_image] == 1.0).all()
    assert (factors[~has_image | ~mask.any(-1)] == 1.0).all()
    for result in (psi, factors):
        assert result.isfinite().all()
        assert ((result >= np.float32(low)) & (result <= np.float32(high))).all()


@settings(max_examples=60)
@given(weight_batches())
def test_unclamped_factors_average_one(batch):
    weights, mask, has_image, groups = batch
    psi = token_factors(weights, mask, has_image=has_image, low=0.0)
    close((psi * mask).sum(-1), mask.sum(-1))
    factors = trajectory_factors(weights, mask, groups, has_image=has_image, low=0.0)
    for group in groups.unique():
        close(factors[groups == group].mean(), 1.0)


@settings(max_examples=60)
@given(weight_batches(), CLAMP)
def test_recentred_factors_average_one(batch, clamp):
    weights, mask, has_image, groups = batch
    options = {"has_image": has_image, "low": clamp[0], "high": clamp[1]}
    recentred = trajectory_factors(weights, mask, groups, recentre=True, **options)
    plain = trajectory_factors(weights, mask, groups, **options)
    for group in groups.unique():
        counted = (groups == group) & has_image & mask.any(-1)
        if counted.any():
            close(recentred[counted].mean(), 1.0)
            close(recentred[counted] * plain[counted].mean(), plain[counted])
    assert (recentred[~has_image | ~mask.any(-1)] == 1.0).all()


@settings(max_examples=80)
@given(batches(), st.randoms(use_true_random=False))
def test_row_order_padding_and_empty_rows_do_not_matter(batch, random):
    scores, mask, has_image, groups = batch
    order = random.sample(range(len(scores)), len(scores))
    got = all_three(
        torch.nn.functional.pad(scores[order], (2, 3, 0, 2), value=math.nan),
        torch.nn.functional.pad(mask[order], (2, 3, 0, 2), value=False),
        torch.cat([has_image[order], torch.tensor([True, False])]),
        torch.cat([groups[order], torch.tensor([0, 99])]),
    )
    weights, psi, factors = all_three(*batch)
    close(got[0][:-2, 2:-3], weights[order])
    close(got[1][:-2, 2:-3], psi[order])
    close(got[2][:-2], factors[order], 1e-6)
    assert (got[0][-2:] == 0.0).all()
    assert (got[1][-2:] == 1.0).all()
    assert (got[2][-2:] == 1.0).all()


@settings(max_examples=40)
@given(batches(), st.integers(1, 4))
def test_split_does_not_matter_where_nothing_is_shared(batch, size):
    scores, mask, has_image, _ = batch
    weights = visual_weights(scores, mask, offset="paper")
    psi = token_factors(weights, mask, has_image=has_image)
    parts = list(zip(*(tensor.split(size) for tensor in (scores, mask, has_image)), strict=True))
    got = [visual_weights(s, m, offset="paper") for s, m, _ in parts]
    assert torch.equal(torch.cat(got), weights)
    factors = [token_factors(w, m, has_image=h) for w, (_, m, h) in zip(got, parts, strict=True)]
    assert torch.equal(torch.cat(factors), psi)


@settings(max_examples=40)
@given(weight_batches())
def test_split_by_group_does_not_matter_to_trajectory_factors(batch):
    weights, mask, has_image, groups = batch
    factors = trajectory_factors(weights, mask, groups, has_image=has_image)
    for group in groups.unique():
        rows = groups == group
        alone = trajectory_factors(weights[rows], mask[rows], groups[rows], has_image=has_image[rows])
        close(alone, factors[rows])


@settings(max_examples=40)
@given(batches())
def test_any_names_of_groups_will_do(batch):
    weights, (_, mask, has_image, groups) = visual_weights(*batch[:2]), batch
    expected = trajectory_factors(weights, mask, groups, has_image=has_image)
    names = [f"prompt {group}" for group in groups.tolist()]
    others = [names, tuple((name, 0) for name in names), np.array(names, dtype=object), groups.numpy(), groups.int()]
    for ids in others:
        close(trajectory_factors(weights, mask, ids, has_image=has_image), expected)


@settings(max_examples=40)
@given(batches(), WEIGHTING)
def test_inputs_are_not_modified(batch, weighting):
    scores, mask, has_image, groups = batch
    weights = visual_weights(scores, mask, **weighting)
    inputs = [*batch, weights]
    copies = [tensor.clone() for tensor in inputs]
    visual_weights(scores, mask, **weighting)
    compensation_ramp(mask, 0.3)
    token_factors(weights, mask, has_image=has_image)
    trajectory_factors(weights, mask, groups, has_image=has_image, recentre=True)
    assert all(torch.equal(*pair) for pair in zip(inputs, copies, strict=True))


@settings(max_examples=40)
@given(batches(), st.sampled_from([torch.bfloat16, torch.float16]))
def test_half_precision_is_upcast(batch, dtype):
    scores, mask, has_image, groups = batch
    scores = (scores / 3.0).to(dtype)
    weights = visual_weights(scores, mask)
    assert weights.dtype == torch.float32
    assert torch.equal(weights, visual_weights(scores.float(), mask))
    half = weights.to(dtype)
    psi = token_factors(half, mask, has_image=has_image)
    assert psi.dtype == torch.float32
    assert torch.equal(psi, token_factors(half.float(), mask, has_image=has_image))
    factors = trajectory_factors(half, mask, groups, has_image=has_image)
    assert factors.dtype == torch.float32
    close(factors, trajectory_factors(half.float(), mask, groups, has_image=has_image), 1e-6)


@settings(max_examples=40)
@given(batches(), st.sampled_from([torch.int64, torch.uint8, torch.float32, torch.bfloat16]))
def test_mask_dtype_does_not_matter(batch, dtype):
    scores, mask, has_image, groups = batch
    got = all_three(scores, mask.to(dtype), has_image.to(dtype), groups)
    assert all(torch.equal(*pair) for pair in zip(got, all_three(*batch), strict=True))
    assert torch.equal(compensation_ramp(mask.to(dtype), 0.3), compensation_ramp(mask, 0.3))


def test_any_non_zero_mask_value_is_valid():
    scores, mask = torch.rand(2, 4), torch.tensor([[2.0, -1.0, 0.5, 0.0]] * 2)
    groups = torch.zeros(2).long()
    got, expected = all_three(scores, mask, mask[:, 0], groups), all_three(scores, mask != 0, torch.ones(2), groups)
    assert all(torch.equal(*pair) for pair in zip(got, expected, strict=True))
    assert torch.equal(compensation_ramp(mask, 0.3), compensation_ramp(mask != 0, 0.3))


def test_results_are_detached():
    scores = torch.rand(2, 3, requires_grad=True)
    mask, ones, groups = torch.ones(2, 3), torch.ones(2), torch.zeros(2, dtype=torch.long)
    assert not visual_weights(scores, mask).requires_grad
    assert not token_factors(scores, mask, has_image=ones).requires_grad
    assert not trajectory_factors(scores, mask, groups, has_image=ones).requires_grad


@pytest.mark.parametrize(("tail_start", "gate_fraction"), [(0.29, 1.0), (0.0, 0.58)])
def test_tail_and_gate_are_counted_in_double_precision(tail_start, gate_fraction):
    """float32 rounds 100 * 0.29 up to 29 and 100 * 0.58 up to 58."""
    assert (torch.tensor(100) * 0.29).floor() == 29 > math.floor(100 * 0.29)
    assert (torch.tensor(100) * 0.58).floor() == 58 > math.floor(100 * 0.58)
    scores = torch.linspace(0.0, 1.0, 100, dtype=torch.float64)
    options = {"compensation": 9.0, "tail_start": tail_start, "gate_fraction": gate_fraction}
    weights = visual_weights(scores[None], torch.ones(1, 100), **options)
    close(weights[0], reference.vgpo_weights(scores.tolist(), 0.0, **options))


def test_late_visual_tokens_are_compensated():
    scores = torch.tensor([[0.8, 0.2, 0.4, 0.4]])
    weights = visual_weights(scores, torch.ones(1, 4))
    # Both 0.4 tie at the threshold of the tail; ramp 0.3 * 2/3 and 0.3.
    assert weights[0].tolist() == pytest.approx([1.0, 0.0, (0.48 - 0.2) / 0.6, (0.52 - 0.2) / 0.6], abs=1e-6)


def test_no_compensation_is_the_plain_normalisation():
    scores, mask = torch.tensor([[0.5, -0.3, 0.1], [0.9, 0.9, 0.7]]), torch.ones(2, 3)
    expected = torch.tensor([[1.0, 0.0, 0.5], [1.0, 1.0, 0.0]])
    for options in ({"compensation": 0.0}, {"tail_start": 1.0}):
        close(visual_weights(scores, mask, **options), expected, 1e-6)


def test_offset():
    scores = torch.tensor([[0.2, 0.4, 0.3], [-0.5, 0.1, 0.0]])
    options = {"tail_start": 0.0, "gate_fraction": 1.0, "compensation": 1.0}
    for offset, shift in (("official", -0.5), ("paper", -1.0)):
        rho = (scores[0] - shift) * torch.tensor([1.0, 1.5, 2.0])
        expected = (rho - rho[0]) / (rho[2] - rho[0])
        close(visual_weights(scores, torch.ones(2, 3), offset=offset, **options)[0], expected, 1e-6)
    alone = visual_weights(scores[:1], torch.ones(1, 3), offset="official", **options)[0]
    rho = scores[0] * torch.tensor([1.0, 1.5, 2.0])
    close(alone, (rho - rho[0]) / (rho.max() - rho[0]), 1e-6)


@pytest.mark.parametrize("scores", [[0.5] * 4, [0.0] * 4, [-0.5] * 4, [0.5, 0.5 + 9e-7, 0.5, 0.5]])
def test_constant_scores_are_neutral(scores):
    batch = torch.tensor([scores, [-0.9, 0.1, 0.2, 0.8]], dtype=torch.float64)
    weights = visual_weights(batch, torch.ones(2, 4))
    assert (weights[0] == 0.0).all()
    assert (token_factors(weights, torch.ones(2, 4), has_image=torch.ones(2))[0] == 1.0).all()
    assert weights[1].max() > 0.9


def test_scores_that_differ_a_little_are_ranked():
    weights = visual_weights(torch.tensor([[0.5 + 3e-6, 0.5]], dtype=torch.float64), torch.ones(1, 2), compensation=0.0)
    assert weights[0].tolist() == pytest.approx([1.0, 0.0], abs=0.01)


def test_rows_without_an_image_are_left_alone():
    weights = torch.tensor([[0.0, 0.5], [0.0, 0.0], [1.0, 1.0], [0.3, 0.4]])
    mask, has_image, groups = torch.ones(4, 2), torch.tensor([True, False, True, False]), torch.zeros(4).long()
    assert (token_factors(weights, mask, has_image=has_image)[~has_image] == 1.0).all()
    factors = trajectory_factors(weights, mask, groups, has_image=has_image, low=0.0)
    assert factors.tolist() == pytest.approx([0.5, 1.0, 1.5, 1.0])


def test_empty_rows_shift_nobody():
    weights = torch.tensor([[0.5, 0.5], [1.0, 1.0], [0.0, 0.0]])
    mask = torch.tensor([[1, 1], [1, 1], [0, 0]])
    options = {"has_image": torch.ones(3), "low": 0.0}
    assert trajectory_factors(weights, mask, [5, 5, 5], **options).tolist() == pytest.approx([0.5, 1.5, 1.0])


def test_one_valid_token():
    scores, mask = torch.tensor([[0.3, 0.9], [0.4, 0.8]]), torch.tensor([[0, 1], [1, 1]])
    weights, psi, factors = all_three(scores, mask, torch.ones(2), torch.zeros(2).long())
    assert weights[0].tolist() == [0.0, 0.0]
    assert psi[0].tolist() == [1.0, 1.0]
    assert factors.tolist() == pytest.approx([0.9, 1.5])


def test_groups_of_one():
    weights = torch.tensor([[0.0, 1.0], [0.3, 1.0], [0.0, 0.0]])
    factors = trajectory_factors(weights, torch.ones(3, 2), torch.tensor([4, -1, 9]), has_image=torch.ones(3))
    assert factors.tolist() == [1.0, 1.0, 1.0]


def test_groups_with_one_member_that_counts():
    weights = torch.tensor([[0.0, 1.0], [0.3, 1.0], [0.5, 0.2]])
    factors = trajectory_factors(
        weights, torch.tensor([[1, 1], [1, 1], [0, 0]]), ["a", "a", "a"], has_image=torch.tensor([True, False, True])
    )
    assert factors.tolist() == [1.0, 1.0, 1.0]


def test_equal_mass_gives_factor_one_whatever_the_rounding():
    row = torch.rand(1, 999, generator=torch.Generator().manual_seed(0))
    weights = torch.cat([row, row.flip(-1), row[:, torch.randperm(999)]])
    assert len(set(weights.sum(-1).tolist())) > 1
    factors = trajectory_factors(weights, torch.ones(3, 999), [0, 0, 0], has_image=torch.ones(3))
    assert factors.tolist() == [1.0, 1.0, 1.0]


def test_all_masked():
    scores, mask = torch.full((2, 3), math.nan), torch.zeros(2, 3)
    weights, psi, factors = all_three(scores, mask, torch.ones(2), torch.zeros(2).long())
    assert (weights == 0.0).all()
    assert (psi == 1.0).all()
    assert (factors == 1.0).all()


def test_low_clamp_of_token_factors_binds():
    weights = torch.tensor([[1.0] * 15 + [0.0]])
    factors = token_factors(weights, torch.ones(1, 16), has_image=torch.ones(1))
    assert factors[0, -1].item() == pytest.approx(0.1)
    assert factors[0, 0].item() == pytest.approx(1.0 + 1.0 / 16.0)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_batches(shape):
    rows = torch.ones(shape[0])
    weights, psi, factors = all_three(torch.zeros(shape), torch.zeros(shape), rows, rows.long())
    assert weights.shape == psi.shape == compensation_ramp(weights, 0.3).shape == shape
    assert factors.tolist() == [1.0] * shape[0]


def test_work_does_not_loop_over_rows_groups_or_tokens():
    counts = []
    for shape in [(2, 3), (17, 101)]:
        scores, mask = torch.rand(shape), torch.ones(shape)
        groups = torch.arange(shape[0]) // 2
        with CountOperations() as counter:
            weights, _, _ = all_three(scores, mask, torch.ones(shape[0]), groups)
            trajectory_factors(weights, mask, groups, has_image=torch.ones(shape[0]), recentre=True)
            compensation_ramp(mask, 0.3)
        counts.append(counter.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("schedule", ["linear", "exponential", "step"])
def test_never_reads_a_value_on_the_host(schedule):
    scores, groups = torch.zeros(4, 3, device="meta"), torch.zeros(4, device="meta", dtype=torch.long)
    weights, psi, factors = all_three(scores, scores, scores[:, 0], groups)
    assert (weights.shape, psi.shape, factors.shape) == ((4, 3), (4, 3), (4,))
    assert visual_weights(scores, scores, schedule=schedule, offset="paper").shape == (4, 3)
    assert compensation_ramp(scores, 0.3, schedule).shape == (4, 3)
    assert trajectory_factors(scores, scores, "aabb", has_image=groups, recentre=True).shape == (4,)


def shapes_rejected(name):
    return [
        ({name: torch.zeros(3)}, rf"{name} has shape \(3,\)"),
        ({name: torch.zeros(2, 3, dtype=torch.long)}, rf"{name} .*torch\.int64"),
        ({"response_mask": torch.ones(2, 4)}, rf"response_mask has shape \(2, 4\).*{name}'s \(2, 3\)"),
    ]


FACTORS_REJECTED = [
    *shapes_rejected("visual_weights"),
    ({"has_image": torch.ones(3)}, r"has_image has shape \(3,\); it must be \(2,\)"),
    ({"low": -0.1}, r"low is -0\.1; it must be in \[0, 1\]"),
    ({"low": 1.1}, r"low is 1\.1"),
    ({"low": math.nan}, "low is nan"),
    ({"high": 0.9}, r"high is 0\.9; it must be >= 1"),
    ({"high": math.nan}, "high is nan"),
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *shapes_rejected("visual_focus"),
        ({"compensation": -0.1}, r"compensation is -0\.1; it must be finite and >= 0"),
        ({"compensation": math.inf}, "compensation is inf"),
        ({"tail_start": -0.1}, r"tail_start is -0\.1; it must be in \[0, 1\]"),
        ({"tail_start": 1.1}, r"tail_start is 1\.1"),
        ({"gate_fraction": -0.1}, r"gate_fraction is -0\.1; it must be in \[0, 1\]"),
        ({"gate_fraction": math.nan}, "gate_fraction is nan"),
        ({"offset": "none"}, r"offset is 'none'; it must be one of \('official', 'paper'\)"),
        ({"schedule": "cosine"}, r"schedule is 'cosine'; .*'linear', 'exponential', 'step'"),
    ],
)
def test_visual_weights_rejects(changes, message):
    with pytest.raises(ValueError, match=message):
        visual_weights(**({"visual_focus": torch.zeros(2, 3), "response_mask": torch.ones(2, 3)} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response_mask": torch.ones(3)}, r"response_mask has shape \(3,\); it must be \(B, T\)"),
        ({"strength": -1.0}, r"strength is -1\.0; it must be finite and >= 0"),
        ({"strength": math.nan}, "strength is nan"),
        ({"schedule": "cosine"}, r"schedule is 'cosine'"),
    ],
)
def test_compensation_ramp_rejects(changes, message):
    with pytest.raises(ValueError, match=message):
        compensation_ramp(**({"response_mask": torch.ones(2, 3), "strength": 0.3} | changes))


def factor_arguments(changes):
    weights = {"visual_weights": torch.zeros(2, 3), "response_mask": torch.ones(2, 3), "has_image": torch.ones(2)}
    return weights | changes


@pytest.mark.parametrize(("changes", "message"), FACTORS_REJECTED)
def test_token_factors_rejects(changes, message):
    with pytest.raises(ValueError, match=message):
        token_factors(**factor_arguments(changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *FACTORS_REJECTED,
        ({"group_ids": torch.zeros(3).long()}, r"group_ids has shape \(3,\); it must be \(2,\)"),
        ({"group_ids": torch.zeros(2)}, r"group_ids has dtype torch\.float32; .*integers"),
        ({"group_ids": torch.ones(2, dtype=torch.bool)}, r"group_ids has dtype torch\.bool"),
        ({"group_ids": ["a"]}, "group_ids has 1 entries; it must have 2"),
        ({"group_ids": [[1], [2]]}, r"group_ids holds \[1\] of type list"),
        ({"group_ids": [(1, []), 2]}, r"group_ids holds \(1, \[\]\) of type tuple"),
        ({"group_ids": [torch.tensor(1), torch.tensor(1)]}, r"group_ids holds tensor\(1\) of type Tensor"),
    ],
)
def test_trajectory_factors_rejects(changes, message):
    with pytest.raises(ValueError, match=message):
        trajectory_factors(**({"group_ids": [0, 1]} | factor_arguments(changes)))
