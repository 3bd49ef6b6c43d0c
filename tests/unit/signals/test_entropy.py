# SPDX-License-Identifier: Apache-2.0
"""Entropy of the nucleus."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.allocations import LargestTensor

from verl_ext.signals import truncated_entropy

LOGIT = st.floats(-30.0, 30.0) | st.sampled_from([-math.inf, -1e4, 1e4])
ROWS = st.lists(LOGIT, min_size=1, max_size=12).filter(lambda row: max(row) > -math.inf)


def reference(logits, top_p):
    """One distribution, plain Python."""
    peak = max(logits)
    masses = sorted((math.exp(x - peak) for x in logits), reverse=True)
    total = sum(masses)
    kept, reached = [], 0.0
    for mass in masses:
        kept.append(mass / total)
        reached += mass / total
        if top_p < 1.0 and reached >= top_p:
            break
    held = sum(kept)
    return -sum(p / held * math.log(p / held) for p in kept if p > 0.0)


def boundary_is_clear(logits, top_p):
    """Whether no sum of the most likely probabilities meets top_p within rounding."""
    ordered = torch.tensor(logits, dtype=torch.float64).softmax(-1).sort(descending=True).values
    return ((ordered.cumsum(-1) - top_p).abs() > 1e-9).all()


@settings(max_examples=200)
@given(ROWS, st.sampled_from([0.05, 0.5, 0.8, 0.95, 0.999, 1.0]))
def test_matches_plain_python(row, top_p):
    if top_p < 1.0 and not boundary_is_clear(row, top_p):
        return
    ours = truncated_entropy(torch.tensor(row, dtype=torch.float64), top_p)
    assert ours.shape == ()
    assert ours.item() == pytest.approx(reference(row, top_p), abs=1e-9)


def test_the_token_that_crosses_is_included():
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log()
    assert truncated_entropy(logits, 0.5).item() == 0.0
    torch.testing.assert_close(
        truncated_entropy(logits, 0.51), torch.tensor(math.log(3) - 2 / 3 * math.log(2)).double()
    )
    torch.testing.assert_close(truncated_entropy(logits, 0.75), truncated_entropy(logits, 0.51))
    torch.testing.assert_close(truncated_entropy(logits, 0.9), truncated_entropy(logits, 1.0))


def test_a_nucleus_of_one_token_has_entropy_exactly_zero():
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(1))
    logits[:, 7] += 12.0
    confident = logits.softmax(-1).amax(-1) >= 0.95
    assert confident.all()
    assert torch.equal(truncated_entropy(logits, 0.95), torch.zeros(200))
    assert (truncated_entropy(logits, 1.0) > 0.0).all()


@pytest.mark.parametrize("top_p", [0.3, 0.95, 1.0])
def test_extreme_logits(top_p):
    logits = torch.full((3, 6), -math.inf)
    logits[0, 2] = 1e4
    logits[1] = torch.tensor([1e4, -1e4, 1e4, -math.inf, 0.0, 1e4])
    logits[2] = -1e4
    expected = [0.0, math.log(1 if top_p == 0.3 else 3), math.log(2 if top_p == 0.3 else 6)]
    torch.testing.assert_close(truncated_entropy(logits, top_p), torch.tensor(expected), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0], ids=["flat", "wide", "narrow"])
def test_large_vocabularies_with_wide_and_narrow_nuclei(scale):
    logits = scale * torch.randn(5, 3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [reference(row.tolist(), 0.9) for row in logits]
    assert truncated_entropy(logits, 0.9).tolist() == pytest.approx(expected, abs=1e-9)


def test_full_entropy_is_torchs():
    logits = torch.randn(4, 7, 30)
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(truncated_entropy(logits, 1.0), expected, atol=1e-6, rtol=1e-6)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), top_p=st.floats(0.01, 1.0), scale=st.sampled_from([0.1, 1.0, 8.0]))
def test_bounds(seed, top_p, scale):
    logits = scale * torch.randn(5, 40, generator=torch.Generator().manual_seed(seed))
    truncated, full = truncated_entropy(logits, top_p), truncated_entropy(logits, 1.0)
    assert (truncated >= 0.0).all()
    assert (truncated <= full + 1e-5).all()
    assert (full <= math.log(40) + 1e-5).all()


@pytest.mark.parametrize("chunk_size", [1, 3, 6, 100])
@pytest.mark.parametrize("contiguous", [True, False])
def test_chunks_do_not_matter(chunk_size, contiguous):
    logits = torch.randn(2, 4, 9)
    logits = logits[:, 1:] if not contiguous else logits[:, 1:].contiguous()
    temperature = torch.tensor([[0.5, 1.0, 2.0], [1.5, 0.7, 1.0]])
    ours = truncated_entropy(logits, 0.9, temperature=temperature, chunk_size=chunk_size)
    expected = [[truncated_entropy(logits[b, t] / temperature[b, t], 0.9) for t in range(3)] for b in range(2)]
    torch.testing.assert_close(ours, torch.tensor(expected), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("contiguous", [True, False])
def test_no_second_tensor_of_that_size(contiguous):
    logits = torch.randn(2, 33, 50)
    logits = logits[:, :-1].contiguous() if contiguous else logits[:, :-1]
    with LargestTensor() as largest:
        truncated_entropy(logits, 0.9, chunk_size=4)
    assert 0 < largest.numel <= 4 * 50


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature(temperature):
    logits = torch.randn(6, 20, dtype=torch.float64)
    expected = truncated_entropy(logits / temperature, 0.9)
    torch.testing.assert_close(truncated_entropy(logits, 0.9, temperature=temperature), expected)
    each = torch.full((6,), temperature, dtype=torch.float64)
    torch.testing.assert_close(truncated_entropy(logits, 0.9, temperature=each), expected)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_precision_is_float32_or_better(dtype, expected):
    logits = torch.randn(3, 20).to(dtype)
    ours = truncated_entropy(logits, 1.0)
    assert ours.dtype == expected
    assert torch.equal(ours, truncated_entropy(logits.to(expected), 1.0))


def test_broken_logits_are_not_hidden_and_stay_with_their_token():
    logits = torch.randn(3, 5)
    logits[0, 1] = math.nan
    logits[1] = -math.inf
    for top_p in (0.9, 1.0):
        assert truncated_entropy(logits, top_p).isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 0, 5), (2, 3, 5)])
def test_any_shape(shape):
    assert truncated_entropy(torch.randn(shape), 0.9).shape == shape[:-1]


def test_is_detached_and_leaves_its_input_alone():
    logits = torch.randn(3, 5, requires_grad=True)
    copy = logits.detach().clone()
    for top_p in (0.9, 1.0):
        assert not truncated_entropy(logits, top_p).requires_grad
    assert torch.equal(logits, copy)


def test_never_reads_a_value_on_the_host():
    assert truncated_entropy(torch.zeros(3, 5, device="meta"), 0.9, chunk_size=2).shape == (3,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": torch.zeros(())}, r"^logits has shape \(\)"),
        ({"logits": torch.zeros(3, 5).long()}, r"^logits has shape \(3, 5\) and dtype torch.int64"),
        ({"top_p": 0.0}, r"^top_p is 0.0"),
        ({"top_p": 1.01}, r"^top_p is 1.01"),
        ({"top_p": math.nan}, r"^top_p is nan"),
        ({"temperature": 0.0}, r"^temperature is 0.0"),
        ({"temperature": torch.ones(3, 1)}, r"^temperature has shape \(3, 1\)"),
        ({"chunk_size": 0}, r"^chunk_size is 0"),
    ],
)
def test_rejects_wrong_arguments(changed, message):
    with pytest.raises(ValueError, match=message):
        truncated_entropy(**{"logits": torch.zeros(3, 5), "top_p": 0.9, **changed})
