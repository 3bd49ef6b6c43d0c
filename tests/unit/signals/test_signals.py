# SPDX-License-Identifier: Apache-2.0
"""Properties of the sampled divergence."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_ext.signals import sampled_k3

LOG_PROBS = st.floats(-60.0, 0.0, width=32) | st.just(-math.inf)
PAIRS = st.lists(st.tuples(LOG_PROBS, LOG_PROBS), min_size=1, max_size=20)


def reference(clean, ablated):
    if clean == ablated:
        return 0.0
    delta = min(max(ablated - clean, -20.0), 20.0)
    return min(math.expm1(delta) - delta, 10.0)


@settings(max_examples=60)
@given(PAIRS)
def test_matches_scalar_reference(pairs):
    clean, ablated = torch.tensor(pairs, dtype=torch.float64).unbind(-1)
    expected = torch.tensor([reference(x, y) for x, y in pairs], dtype=torch.float64)
    torch.testing.assert_close(sampled_k3(clean, ablated), expected, atol=1e-12, rtol=1e-12)


@settings(max_examples=60)
@given(PAIRS)
def test_value_in_range_and_gradient_finite(pairs):
    clean, ablated = torch.tensor(pairs, dtype=torch.float32).unbind(-1)
    clean = clean.clone().requires_grad_()
    value = sampled_k3(clean, ablated)
    value.sum().backward()
    assert value.min() >= 0.0
    assert value.max() <= 10.0
    assert clean.grad.isfinite().all()


def test_gradient_is_one_minus_ratio_and_zero_where_clamped():
    delta = torch.linspace(-25.0, 25.0, 1001, dtype=torch.float64)
    clean = torch.zeros_like(delta).requires_grad_()
    sampled_k3(clean, delta).sum().backward()
    clamped = (delta.exp() - delta - 1.0 > 10.0) | (delta.abs() > 20.0)
    assert 0 < clamped.sum() < len(delta)
    assert torch.equal(clean.grad[clamped], torch.zeros_like(clean.grad[clamped]))
    torch.testing.assert_close(clean.grad[~clamped], 1.0 - delta[~clamped].exp())


def test_float32_keeps_the_digits_of_small_differences():
    delta = torch.tensor([1e-4, -1e-4, 1e-3])
    value = sampled_k3(torch.zeros(3), delta)
    torch.testing.assert_close(value, delta**2 / 2, atol=0.0, rtol=1e-2)


def test_both_impossible_is_zero_and_leaks_no_nan():
    clean = torch.tensor([-math.inf, -1.0], requires_grad=True)
    value = sampled_k3(clean, torch.tensor([-math.inf, -2.0]))
    value.sum().backward()
    torch.testing.assert_close(value.detach(), torch.tensor([0.0, math.exp(-1.0)]))
    torch.testing.assert_close(clean.grad, torch.tensor([0.0, 1.0 - math.exp(-1.0)]))


@pytest.mark.parametrize(("clean", "ablated"), [(-math.inf, -1.0), (-1.0, -math.inf)])
def test_impossible_in_one_view_saturates_without_gradient(clean, ablated):
    log_prob = torch.tensor([clean], requires_grad=True)
    value = sampled_k3(log_prob, torch.tensor([ablated]))
    value.sum().backward()
    assert value.item() == 10.0
    assert log_prob.grad.item() == 0.0


def test_broken_input_is_not_hidden():
    assert sampled_k3(torch.tensor([math.nan]), torch.tensor([-1.0])).isnan().all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4)])
def test_any_shape(shape):
    value = sampled_k3(torch.zeros(shape), torch.full(shape, -1.0))
    assert value.shape == shape
    torch.testing.assert_close(value, torch.full(shape, math.exp(-1.0)))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float32, torch.float32),
        (torch.float64, torch.float32, torch.float64),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_precision_is_float32_or_better(first, second, expected):
    clean, ablated = torch.tensor([-1.03], dtype=first), torch.tensor([-2.71], dtype=second)
    value = sampled_k3(clean, ablated)
    assert value.dtype == expected
    assert torch.equal(value, sampled_k3(clean.to(expected), ablated.to(expected)))


def test_inputs_are_not_modified():
    clean, ablated = torch.tensor([-math.inf, -1.0]), torch.tensor([-math.inf, -30.0])
    copies = clean.clone(), ablated.clone()
    sampled_k3(clean, ablated)
    assert torch.equal(clean, copies[0])
    assert torch.equal(ablated, copies[1])


def test_never_reads_a_value_on_the_host():
    value = sampled_k3(torch.zeros(2, 3, device="meta"), torch.zeros(2, 3, device="meta"))
    assert value.shape == (2, 3)


def test_rejects_different_shapes():
    with pytest.raises(ValueError, match=r"ablated_log_prob has shape \(3,\).*\(2,\)"):
        sampled_k3(torch.zeros(2), torch.zeros(3))


@pytest.mark.parametrize("name", ["log_prob", "ablated_log_prob"])
def test_rejects_integers(name):
    arguments = {"log_prob": torch.zeros(2), "ablated_log_prob": torch.zeros(2)}
    arguments[name] = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=rf"^{name} has dtype torch.int64"):
        sampled_k3(**arguments)
