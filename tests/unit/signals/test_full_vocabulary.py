# SPDX-License-Identifier: Apache-2.0
"""Two views compared over the whole vocabulary."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.allocations import LargestTensor

from verl_ext.signals import full_vocabulary as module
from verl_ext.signals import logits_divergences, view_divergences

LN2 = math.log(2.0)
FIELDS = ("kl", "jsd", "clean_entropy", "ablated_entropy")


def x_log_ratio(x, y, z):
    """x (log y - log z), where nothing times anything is nothing."""
    return torch.where(x == 0.0, 0.0, x * (y.log() - z.log()))


def reference(clean_logits, ablated_logits):
    """From explicit float64 probabilities."""
    p, q = clean_logits.double().softmax(-1), ablated_logits.double().softmax(-1)
    mean = (p + q) / 2
    one = torch.ones_like(p)
    return {
        "kl": x_log_ratio(p, p, q).sum(-1),
        "jsd": (x_log_ratio(p, p, mean).sum(-1) + x_log_ratio(q, q, mean).sum(-1)) / 2,
        "clean_entropy": -x_log_ratio(p, p, one).sum(-1),
        "ablated_entropy": -x_log_ratio(q, q, one).sum(-1),
    }


def assert_matches(result, expected, atol, rtol):
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(result, name).double(),
            expected[name].double(),
            atol=atol,
            rtol=rtol,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def views(seed=0, tokens=13, width=6, vocabulary=40, spread=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    ablated = clean + torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    weight = spread * torch.randn(vocabulary, width, generator=generator, dtype=torch.float64)
    bias = torch.randn(vocabulary, generator=generator, dtype=torch.float64)
    return tuple(x.to(dtype) for x in (clean, ablated, weight, bias))


@pytest.mark.parametrize("chunk_size", [1, 7, 40, 8192])
@pytest.mark.parametrize("token_chunk", [1, 5, 1024])
@pytest.mark.parametrize("with_bias", [False, True])
def test_matches_explicit_probabilities(chunk_size, token_chunk, with_bias):
    clean, ablated, weight, bias = views()
    bias = bias if with_bias else None
    result = view_divergences(clean, ablated, weight, bias, chunk_size=chunk_size, token_chunk=token_chunk)
    shift = 0.0 if bias is None else bias
    assert_matches(result, reference(clean @ weight.T + shift, ablated @ weight.T + shift), 1e-12, 1e-12)


def test_matches_torchs_kl_div():
    clean, ablated, weight, bias = views()
    log_p, log_q = ((x @ weight.T + bias).log_softmax(-1) for x in (clean, ablated))
    expected = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(view_divergences(clean, ablated, weight, bias).kl, expected)


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(1, 6),
    vocabulary=st.integers(1, 30),
    chunk_size=st.integers(1, 31),
    token_chunk=st.integers(1, 7),
    spread=st.sampled_from([0.01, 1.0, 10.0]),
)
def test_matches_in_any_shape(seed, tokens, vocabulary, chunk_size, token_chunk, spread):
    clean, ablated, weight, bias = views(seed, tokens, vocabulary=vocabulary, spread=spread)
    result = view_divergences(clean, ablated, weight, bias, chunk_size=chunk_size, token_chunk=token_chunk)
    assert_matches(result, reference(clean @ weight.T + bias, ablated @ weight.T + bias), 1e-10, 1e-10)
    assert all(getattr(result, name).shape == (tokens,) for name in FIELDS)


LOGIT = st.sampled_from([-math.inf, -1e4, -300.0, -1.0, 0.0, 0.5, 2.0, 300.0, 1e4])
ROWS = st.integers(1, 8).flatmap(lambda n: st.lists(st.tuples(LOGIT, LOGIT), min_size=n, max_size=n))


@settings(max_examples=200)
@given(ROWS, st.sampled_from([torch.float32, torch.float64]))
def test_extreme_logits(pairs, dtype):
    clean, ablated = torch.tensor(pairs, dtype=dtype).unbind(-1)
    result = logits_divergences(clean, ablated)
    if not (clean > -math.inf).any() or not (ablated > -math.inf).any():
        assert result.jsd.isnan()
        return
    # In log space: a token of probability exp(-20000) is possible, though float64 cannot tell.
    log_p, log_q = clean.double().log_softmax(-1), ablated.double().log_softmax(-1)
    possible = log_p > -math.inf
    kl = math.inf if (possible & (log_q == -math.inf)).any() else (log_p.exp() * (log_p - log_q))[possible].sum().item()
    assert result.kl.item() == pytest.approx(max(kl, 0.0), rel=1e-6, abs=1e-6)
    expected = reference(clean, ablated)
    for name in ("jsd", "clean_entropy", "ablated_entropy"):
        assert getattr(result, name).item() == pytest.approx(expected[name].item(), abs=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 2, 4])
def test_impossible_tokens_by_the_bias(chunk_size):
    clean, ablated, weight, _ = views(vocabulary=4)
    bias = torch.tensor([-math.inf, 0.0, 1.0, -math.inf], dtype=torch.float64)
    result = view_divergences(clean, ablated, weight, bias, chunk_size=chunk_size)
    expected = reference((clean @ weight.T)[:, 1:3] + bias[1:3], (ablated @ weight.T)[:, 1:3] + bias[1:3])
    assert_matches(result, expected, 1e-12, 1e-12)


def test_impossible_in_one_view():
    impossible = -math.inf
    clean = torch.tensor([[0.0, 0.0, impossible], [0.0, impossible, impossible], [0.0, impossible, -1e4]])
    ablated = torch.tensor([[0.0, impossible, impossible], [0.0, 0.0, 0.0], [0.0, impossible, impossible]])
    result = logits_divergences(clean, ablated)
    torch.testing.assert_close(result.kl, torch.tensor([math.inf, math.log(3.0), math.inf]))
    assert result.jsd.isfinite().all()
    disjoint = logits_divergences(torch.tensor([0.0, impossible]), torch.tensor([impossible, 0.0]))
    assert disjoint.kl.item() == math.inf
    assert disjoint.jsd.item() == pytest.approx(LN2)


def test_float32_keeps_the_digits_of_large_logits():
    generator = torch.Generator().manual_seed(0)
    offset = torch.randn(20, 500, generator=generator)
    clean, ablated = 1e4 + offset, 1e4 + offset.roll(1, 0)
    assert_matches(logits_divergences(clean, ablated), reference(clean, ablated), 1e-5, 1e-5)


@pytest.mark.parametrize("difference", [1e-4, 1e-2])
def test_float32_keeps_the_digits_of_small_differences(difference):
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(20, 500, generator=generator)
    ablated = clean + difference * torch.randn(20, 500, generator=generator)
    result, expected = logits_divergences(clean, ablated), reference(clean, ablated)
    torch.testing.assert_close(result.kl.double(), expected["kl"], atol=0.0, rtol=2e-3)
    torch.testing.assert_close(result.jsd.double(), expected["jsd"], atol=0.0, rtol=2e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_size", [7, 40])
def test_equal_views_do_not_differ(dtype, chunk_size):
    clean, _, weight, bias = views(dtype=dtype)
    result = view_divergences(clean, clean.clone(), weight, bias, chunk_size=chunk_size)
    assert torch.equal(result.kl, torch.zeros_like(result.kl))
    assert torch.equal(result.jsd, torch.zeros_like(result.jsd))
    assert torch.equal(result.clean_entropy, result.ablated_entropy)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([1e-3, 1.0, 100.0]))
def test_bounds_and_symmetry(seed, spread):
    clean, ablated, weight, bias = views(seed, spread=spread, dtype=torch.float32)
    result, swapped = view_divergences(clean, ablated, weight, bias), view_divergences(ablated, clean, weight, bias)
    torch.testing.assert_close(result.jsd, swapped.jsd, atol=1e-7, rtol=1e-5)
    assert torch.equal(result.clean_entropy, swapped.ablated_entropy)
    assert (result.kl >= 0.0).all()
    assert (result.jsd >= 0.0).all()
    assert (result.jsd <= LN2).all()
    assert (result.jsd <= result.kl / 2 + 1e-6).all()
    assert (result.clean_entropy >= 0.0).all()
    assert (result.clean_entropy <= math.log(40) + 1e-5).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature(temperature):
    clean, ablated, weight, bias = views()
    result = view_divergences(clean, ablated, weight, bias, temperature=temperature)
    logits = [(x @ weight.T + bias) / temperature for x in (clean, ablated)]
    assert_matches(result, reference(*logits), 1e-12, 1e-12)


def test_temperature_of_each_token():
    clean, ablated, weight, bias = views()
    temperature = torch.linspace(0.5, 2.0, len(clean))
    result = view_divergences(clean, ablated, weight, bias, temperature=temperature, token_chunk=4)
    logits = [(x @ weight.T + bias) / temperature.double()[:, None] for x in (clean, ablated)]
    assert_matches(result, reference(*logits), 1e-12, 1e-12)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_precision_after_the_product(dtype, expected):
    clean, ablated, weight, bias = views(dtype=dtype)
    result = view_divergences(clean, ablated, weight, bias)
    logits = [torch.nn.functional.linear(x, weight, bias) for x in (clean, ablated)]
    assert_matches(result, reference(*logits), 2e-6, 2e-6)
    for comparison in (result, logits_divergences(*logits)):
        assert all(getattr(comparison, name).dtype == expected for name in FIELDS)


def test_logits_of_two_dtypes():
    clean, ablated = torch.randn(3, 5).bfloat16(), torch.randn(3, 5).double()
    result = logits_divergences(clean, ablated)
    assert result.kl.dtype == torch.float64
    assert_matches(result, reference(clean, ablated), 1e-12, 1e-12)


def test_autocast_decides_the_dtype_of_the_product():
    clean, ablated, weight, bias = views(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = view_divergences(clean.bfloat16(), ablated.bfloat16(), weight, bias)
        logits = [torch.nn.functional.linear(x.bfloat16(), weight, bias) for x in (clean, ablated)]
    assert logits[0].dtype == torch.bfloat16
    assert_matches(result, reference(*logits), 2e-6, 2e-6)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (0, 5), (2, 0, 5)])
def test_logits_of_any_shape(shape, monkeypatch):
    monkeypatch.setattr(module, "TOKEN_CHUNK", 2)
    monkeypatch.setattr(module, "VOCABULARY_CHUNK", 3)
    clean, ablated = torch.randn(shape), torch.randn(shape)
    result = logits_divergences(clean, ablated)
    assert all(getattr(result, name).shape == shape[:-1] for name in FIELDS)
    assert_matches(result, reference(clean, ablated), 1e-6, 1e-6)


def test_no_tokens():
    clean, ablated, weight, bias = views()
    result = view_divergences(clean[:0], ablated[:0], weight, bias)
    assert all(getattr(result, name).shape == (0,) for name in FIELDS)


@pytest.mark.parametrize("chunk_size", [10, 64])
def test_logits_of_the_whole_vocabulary_are_never_stored(chunk_size):
    clean, ablated, weight, bias = views(tokens=32, vocabulary=1000)
    with LargestTensor() as largest:
        view_divergences(clean, ablated, weight, bias, chunk_size=chunk_size)
    assert 0 < largest.numel <= len(clean) * chunk_size
    with LargestTensor() as largest:
        view_divergences(clean, ablated, weight, bias, chunk_size=chunk_size, token_chunk=8)
    assert largest.numel <= max(8 * chunk_size, 4 * len(clean))


def test_never_reads_a_value_on_the_host():
    hidden, weight = torch.zeros(4, 3, device="meta"), torch.zeros(9, 3, device="meta")
    result = view_divergences(hidden, hidden, weight, chunk_size=4, temperature=torch.ones(4, device="meta"))
    assert result.kl.shape == (4,)


def test_broken_states_are_not_hidden_and_stay_with_their_token():
    clean, ablated, weight, bias = views()
    ablated[3, 0] = math.nan
    result = view_divergences(clean, ablated, weight, bias)
    for name in ("kl", "jsd", "ablated_entropy"):
        assert getattr(result, name).isnan().nonzero().flatten().tolist() == [3]
    assert result.clean_entropy.isfinite().all()


def test_is_detached_and_leaves_its_inputs_alone():
    inputs = [x.requires_grad_() for x in views()]
    copies = [x.detach().clone() for x in inputs]
    result = view_divergences(*inputs)
    logits = torch.randn(3, 5, requires_grad=True)
    kept = logits.detach().clone()
    for comparison in (result, logits_divergences(logits, logits)):
        assert not any(getattr(comparison, name).requires_grad for name in FIELDS)
    assert all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True))
    assert torch.equal(logits, kept)


def test_result_is_frozen():
    result = logits_divergences(torch.zeros(2), torch.zeros(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.kl = torch.ones(())


def test_rejects_wrong_logits():
    with pytest.raises(ValueError, match=r"^ablated_logits has shape \(3,\); it must equal clean_logits's \(2,\)"):
        logits_divergences(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"^clean_logits has dtype torch.int64"):
        logits_divergences(torch.zeros(2).long(), torch.zeros(2))
    with pytest.raises(ValueError, match=r"^ablated_logits has dtype torch.int64"):
        logits_divergences(torch.zeros(2), torch.zeros(2).long())
    for empty in (torch.zeros(()), torch.zeros(3, 0)):
        with pytest.raises(ValueError, match=r"^clean_logits has shape .* must not be empty"):
            logits_divergences(empty, empty)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clean_hidden": torch.zeros(2, 3, 4), "ablated_hidden": torch.zeros(2, 3, 4)}, r"^clean_hidden has shape"),
        ({"ablated_hidden": torch.zeros(2, 4)}, r"^ablated_hidden has shape \(2, 4\)"),
        ({"clean_hidden": torch.zeros(3, 4).long()}, r"^clean_hidden has dtype torch.int64"),
        ({"ablated_hidden": torch.zeros(3, 4).double()}, r"^ablated_hidden has dtype torch.float64"),
        ({"weight": torch.zeros(9, 5)}, r"^weight has shape \(9, 5\)"),
        ({"weight": torch.zeros(0, 4)}, r"^weight has shape \(0, 4\)"),
        ({"weight": torch.zeros(9, 4).bfloat16()}, r"^weight has dtype torch.bfloat16"),
        ({"bias": torch.zeros(8)}, r"^bias has shape \(8,\)"),
        ({"bias": torch.zeros(9).double()}, r"^bias has dtype torch.float64"),
        ({"temperature": 0.0}, r"^temperature is 0.0"),
        ({"temperature": -1.0}, r"^temperature is -1.0"),
        ({"temperature": math.nan}, r"^temperature is nan"),
        ({"temperature": math.inf}, r"^temperature is inf"),
        ({"temperature": torch.ones(2)}, r"^temperature has shape \(2,\)"),
        ({"temperature": torch.ones(3).long()}, r"^temperature has shape \(3,\) and dtype torch.int64"),
        ({"chunk_size": 0}, r"^chunk_size is 0"),
        ({"token_chunk": 0}, r"^token_chunk is 0"),
    ],
)
def test_rejects_wrong_arguments(changed, message):
    arguments = {"clean_hidden": torch.zeros(3, 4), "ablated_hidden": torch.zeros(3, 4), "weight": torch.zeros(9, 4)}
    with pytest.raises(ValueError, match=message):
        view_divergences(**{**arguments, **changed})
