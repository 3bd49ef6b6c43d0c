# SPDX-License-Identifier: Apache-2.0
"""Properties of PAPO's loss terms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.operations import CountOperations

from verl_ext.methods.papo import coefficient_schedule, double_entropy_loss, perception_loss, perception_values

MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"]


@st.composite
def batches(draw):
    """Two views, a mask with holes, empty rows and rows of one token, and which rows have an image."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 10))
    cells = rows * columns
    log_probs = st.lists(st.floats(-30.0, 0.0, width=16), min_size=cells, max_size=cells)
    clean = torch.tensor(draw(log_probs), dtype=torch.float64).view(rows, columns)
    ablated = torch.tensor(draw(log_probs), dtype=torch.float64).view(rows, columns)
    # About half of the differences are small, so that not everything saturates.
    close = torch.tensor(draw(st.lists(st.booleans(), min_size=cells, max_size=cells))).view(rows, columns)
    ablated = torch.where(close, clean + ablated / 20.0, ablated)
    mask = torch.tensor(draw(st.lists(st.booleans(), min_size=cells, max_size=cells))).view(rows, columns)
    has_image = torch.tensor(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    return clean, ablated, mask, has_image


SELECTION = st.fixed_dictionaries(
    {"clip": st.sampled_from([None, 0.2, 3.0]), "top_fraction": st.sampled_from([None, 0.2, 0.5, 1.0])}
)


def reference_values(clean, ablated, mask, has_image, clip, top_fraction):
    """Row by row, in the order of the official code."""
    values = torch.zeros_like(clean)
    for row in range(len(clean)):
        valid = mask[row]
        if not has_image[row] or not valid.any():
            continue
        delta = (ablated[row, valid] - clean[row, valid]).clamp(-20.0, 20.0)
        k3 = (delta.expm1() - delta).clamp(max=10.0)
        if top_fraction is not None:
            k3 = k3 * (k3 >= torch.quantile(k3, 1.0 - top_fraction))
        values[row, valid] = k3 if clip is None else k3.clamp(max=clip)
    return values


def aggregate(values, mask, mode):
    """The three reductions by hand."""
    if mode == "token-mean":
        return values.sum() / (mask.sum().item() + 1e-8)
    lengths = [row.sum().item() + 1e-8 if mode == "seq-mean-token-mean" else 1.0 for row in mask]
    return sum(row.sum() / length for row, length in zip(values, lengths, strict=True)) / len(values)


@settings(max_examples=120)
@given(batches(), SELECTION)
def test_values_match_a_loop_over_rows(batch, selection):
    clean, ablated, mask, has_image = batch
    values = perception_values(clean, ablated, mask, has_image=has_image, **selection)
    torch.testing.assert_close(
        values, reference_values(clean, ablated, mask, has_image, **selection), atol=1e-12, rtol=1e-12
    )


@settings(max_examples=60)
@given(batches(), SELECTION, st.sampled_from(MODES))
def test_loss_is_minus_the_aggregate(batch, selection, mode):
    clean, ablated, mask, has_image = batch
    loss = perception_loss(clean, ablated, mask, coef=0.02, has_image=has_image, loss_agg_mode=mode, **selection)
    values = reference_values(clean, ablated, mask, has_image, **selection)
    torch.testing.assert_close(loss, -0.02 * aggregate(values, mask, mode), atol=1e-12, rtol=1e-9)


@settings(max_examples=60)
@given(batches(), SELECTION, st.sampled_from(MODES))
def test_garbage_in_the_padding_reaches_nothing(batch, selection, mode):
    clean, ablated, mask, has_image = batch
    for garbage in (math.nan, math.inf, -math.inf):
        dirty = clean.masked_fill(~mask, garbage).requires_grad_()
        loss = perception_loss(
            dirty,
            ablated.masked_fill(~mask, garbage),
            mask,
            coef=1.0,
            has_image=has_image,
            loss_agg_mode=mode,
            **selection,
        ) + double_entropy_loss(dirty, ablated.masked_fill(~mask, garbage), mask, coef=1.0, ablated_coef=1.0)
        loss.backward()
        assert loss.isfinite()
        assert dirty.grad.isfinite().all()
        assert (dirty.grad[~mask] == 0.0).all()


@settings(max_examples=40)
@given(batches(), SELECTION, st.sampled_from(MODES), st.randoms(use_true_random=False))
def test_row_order_and_padding_do_not_matter(batch, selection, mode, random):
    clean, ablated, mask, has_image = batch
    order = random.sample(range(len(clean)), len(clean))
    moved = [torch.nn.functional.pad(tensor[order], (1, 2)) for tensor in (clean, ablated, mask)]
    expected = perception_loss(clean, ablated, mask, coef=1.0, has_image=has_image, loss_agg_mode=mode, **selection)
    got = perception_loss(*moved, coef=1.0, has_image=has_image[order], loss_agg_mode=mode, **selection)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-9)


@settings(max_examples=40)
@given(batches(), SELECTION)
def test_inputs_are_not_modified(batch, selection):
    clean, ablated, mask, has_image = batch
    copies = [tensor.clone() for tensor in batch]
    perception_loss(clean, ablated, mask, coef=1.0, has_image=has_image, **selection)
    double_entropy_loss(clean, ablated, mask, coef=1.0, ablated_coef=1.0)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(batch, copies, strict=True))


def two_rows():
    clean = torch.tensor([[-1.0, -2.0, -0.5], [-0.2, -3.0, -1.0]], requires_grad=True)
    ablated = torch.tensor([[-1.5, -1.0, -0.6], [-0.9, -2.5, -4.0]])
    return clean, ablated, torch.tensor([[1, 1, 1], [1, 1, 0]])


def test_gradient_pushes_up_what_the_image_supports():
    clean, ablated, mask = two_rows()
    perception_loss(clean, ablated, mask, coef=0.02).backward()
    expected = -0.02 * (1.0 - (ablated - clean.detach()).exp()) * mask / mask.sum()
    torch.testing.assert_close(clean.grad, expected)
    assert clean.grad[0, 0] < 0.0 < clean.grad[0, 1]


def test_image_free_rows_weigh_nothing_and_stay_in_the_denominator():
    clean, ablated, mask = two_rows()
    has_image = torch.tensor([True, False])
    loss = perception_loss(clean, ablated, mask, coef=1.0, has_image=has_image)
    loss.backward()
    torch.testing.assert_close(loss.detach(), -perception_values(clean, ablated, mask)[0].sum().detach() / 5.0)
    assert (clean.grad[1] == 0.0).all()
    assert (clean.grad[0] != 0.0).all()


def test_no_image_anywhere_is_exactly_zero():
    clean, ablated, mask = two_rows()
    loss = perception_loss(clean, ablated, mask, coef=1.0, has_image=torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert (clean.grad == 0.0).all()


def test_clip_stops_the_gradient_above_it():
    clean, ablated, mask = two_rows()
    values = perception_values(clean, ablated, mask, clip=0.2)
    values.sum().backward()
    clipped = values.detach() == 0.2
    assert clipped.any()
    assert (clean.grad[clipped] == 0.0).all()
    assert (clean.grad[~clipped & (mask != 0)] != 0.0).all()


def test_dropped_tokens_get_no_gradient_and_stay_in_the_denominator():
    clean, ablated, mask = two_rows()
    loss = perception_loss(clean, ablated, mask, coef=1.0, top_fraction=0.2)
    loss.backward()
    largest = torch.tensor([[False, True, False], [True, False, False]])
    assert torch.equal(clean.grad != 0.0, largest)
    torch.testing.assert_close(loss.detach(), -perception_values(clean, ablated, mask)[largest].sum().detach() / 5.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("top_fraction", [0.1, 0.2, 0.3, 0.6])
def test_kept_tokens_are_those_torch_quantile_keeps(dtype, top_fraction):
    generator = torch.Generator().manual_seed(0)
    clean, ablated = -torch.rand(2, 60, 60, dtype=dtype, generator=generator)
    mask = torch.ones(60, 60).tril()
    values, kept = (
        perception_values(clean, ablated, mask),
        perception_values(clean, ablated, mask, top_fraction=top_fraction),
    )
    for row in range(60):
        valid = values[row, : row + 1]
        expected = valid * (valid >= torch.quantile(valid, 1.0 - top_fraction))
        assert torch.equal(kept[row, : row + 1], expected)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_valid_is_zero(mode):
    clean = torch.full((2, 3), -1.0, requires_grad=True)
    mask = torch.zeros(2, 3)
    loss = perception_loss(clean, clean.detach() - 1.0, mask, coef=1.0, top_fraction=0.2, loss_agg_mode=mode)
    loss = loss + double_entropy_loss(clean, clean.detach(), mask, coef=1.0, ablated_coef=1.0)
    loss.backward()
    assert loss.item() == 0.0
    assert (clean.grad == 0.0).all()


def test_entropy_terms_push_both_entropies_down():
    clean, ablated, mask = two_rows()
    loss = double_entropy_loss(clean, ablated, mask, coef=0.03, ablated_coef=0.05)
    loss.backward()
    torch.testing.assert_close(loss.item(), (0.03 * 6.7 + 0.05 * 6.5) / 5.0)
    torch.testing.assert_close(clean.grad, -0.03 * mask / 5.0)


def test_entropy_term_that_is_off_ignores_impossible_tokens():
    clean, _, mask = two_rows()
    loss = double_entropy_loss(clean, torch.full((2, 3), -math.inf), mask, coef=1.0, ablated_coef=0.0)
    torch.testing.assert_close(loss.item(), 6.7 / 5.0)


def test_zero_coefficients_are_neutral():
    clean, ablated, mask = two_rows()
    loss = perception_loss(clean, ablated, mask, coef=0.0)
    loss = loss + double_entropy_loss(clean, ablated, mask, coef=0.0, ablated_coef=0.0)
    loss.backward()
    assert loss.item() == 0.0
    assert (clean.grad == 0.0).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.bfloat16])
def test_mask_dtype_does_not_matter(dtype):
    clean, ablated, mask = two_rows()
    for mode in MODES:
        expected = perception_loss(clean, ablated, mask, coef=1.0, loss_agg_mode=mode)
        assert torch.equal(perception_loss(clean, ablated, mask.to(dtype), coef=1.0, loss_agg_mode=mode), expected)


def test_bfloat16_is_upcast():
    clean, ablated, mask = (tensor.detach() for tensor in two_rows())
    clean, ablated = clean.bfloat16(), ablated.bfloat16()
    values = perception_values(clean, ablated, mask)
    assert values.dtype == torch.float32
    assert torch.equal(values, perception_values(clean.float(), ablated.float(), mask))
    entropy = double_entropy_loss(clean, ablated, mask, coef=1.0, ablated_coef=1.0)
    assert entropy.dtype == torch.float32
    assert torch.equal(entropy, double_entropy_loss(clean.float(), ablated.float(), mask, coef=1.0, ablated_coef=1.0))


def test_result_does_not_depend_on_the_default_dtype():
    clean, ablated, mask = (tensor.detach().repeat(151, 1) for tensor in two_rows())
    expected = [perception_loss(clean, ablated, mask, coef=1.0, loss_agg_mode=mode) for mode in MODES]
    torch.set_default_dtype(torch.bfloat16)
    try:
        got = [perception_loss(clean, ablated, mask, coef=1.0, loss_agg_mode=mode) for mode in MODES]
    finally:
        torch.set_default_dtype(torch.float32)
    assert got == expected


def test_work_does_not_loop_over_rows_or_tokens():
    counts = []
    for shape in [(2, 3), (17, 101)]:
        clean, mask, has_image = -torch.rand(shape), torch.ones(shape), torch.ones(shape[0])
        with CountOperations() as counter:
            perception_loss(clean, clean * 2, mask, coef=1.0, clip=0.2, top_fraction=0.2, has_image=has_image)
            double_entropy_loss(clean, clean, mask, coef=1.0, ablated_coef=1.0)
        counts.append(counter.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("mode", MODES)
def test_never_reads_a_value_on_the_host(mode):
    view, has_image = torch.zeros(2, 3, device="meta"), torch.ones(2, device="meta")
    options = {"clip": 0.2, "top_fraction": 0.2, "has_image": has_image, "loss_agg_mode": mode}
    assert perception_loss(view, view, view, coef=1.0, **options).shape == ()
    assert double_entropy_loss(view, view, view, coef=1.0, ablated_coef=1.0).shape == ()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss_agg_mode": "sum"}, r"loss_agg_mode is 'sum'; .*token-mean.*seq-mean-token-mean.*seq-mean-token-sum"),
        ({"coef": -0.1}, r"coef is -0\.1"),
        ({"coef": math.nan}, "coef is nan"),
        ({"clip": 0.0}, r"clip is 0\.0"),
        ({"top_fraction": 0.0}, r"top_fraction is 0\.0; .*\(0, 1\]"),
        ({"top_fraction": 1.1}, r"top_fraction is 1\.1"),
        ({"has_image": torch.ones(3)}, r"has_image has shape \(3,\); it must be \(2,\)"),
        ({"log_prob": torch.zeros(3)}, r"log_prob has shape \(3,\)"),
        ({"ablated_log_prob": torch.zeros(1, 3)}, r"ablated_log_prob has shape \(1, 3\)"),
        ({"ablated_log_prob": torch.zeros(2, 3, dtype=torch.int32)}, r"ablated_log_prob has dtype torch\.int32"),
        ({"response_mask": torch.ones(3)}, r"response_mask has shape \(3,\)"),
    ],
)
def test_perception_loss_rejects_bad_arguments(parameters, message):
    arguments = {
        "log_prob": torch.zeros(2, 3),
        "ablated_log_prob": torch.zeros(2, 3),
        "response_mask": torch.ones(2, 3),
        "coef": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        perception_loss(**(arguments | parameters))


@pytest.mark.parametrize("name", ["coef", "ablated_coef"])
def test_double_entropy_loss_rejects_bad_coefficients(name):
    view = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=rf"^{name} is -1\.0"):
        double_entropy_loss(view, view, view, **({"coef": 0.0, "ablated_coef": 0.0} | {name: -1.0}))


def test_double_entropy_loss_rejects_different_shapes():
    with pytest.raises(ValueError, match="response_mask has shape"):
        double_entropy_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 1), coef=1.0, ablated_coef=1.0)


def test_schedule_ends_and_stays():
    values = [coefficient_schedule(step, start=0.02, end=0.01, total_steps=2) for step in (0, 1, 2, 99)]
    assert values == pytest.approx([0.02, 0.015, 0.01, 0.01])


@pytest.mark.parametrize(("step", "total_steps", "message"), [(-1, 2, "step is -1"), (0, 0, "total_steps is 0")])
def test_schedule_rejects_bad_arguments(step, total_steps, message):
    with pytest.raises(ValueError, match=message):
        coefficient_schedule(step, start=0.0, end=1.0, total_steps=total_steps)
