# SPDX-License-Identifier: Apache-2.0
"""Statistics over the valid tokens of a row, against plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_ext.methods import rows


@st.composite
def batches(draw):
    """Values on a grid (so that ties occur) and a mask with holes, empty rows and rows of one token."""
    count, columns = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    cells = count * columns
    values = draw(st.lists(st.integers(-6, 6), min_size=cells, max_size=cells))
    mask = draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    valid = torch.tensor(mask).view(count, columns)
    return (torch.tensor(values, dtype=torch.float64) / 4.0).view(count, columns), valid


def dirty(values, valid):
    return values.masked_fill(~valid, math.nan)


def lists(values, valid):
    return [row[keep].tolist() for row, keep in zip(values, valid, strict=True)]


@settings(max_examples=60)
@given(batches())
def test_count_mean_and_range(batch):
    values, valid = batch
    values = rows.prepared(dirty(values, valid), valid)
    low, high = rows.row_range(values, valid)
    expected = [(len(r), sum(r) / max(len(r), 1), min(r, default=0.0), max(r, default=0.0)) for r in lists(*batch)]
    got = torch.cat([rows.row_count(valid), rows.row_mean(values, valid), low, high], dim=-1)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=100)
@given(batches(), st.integers(0, 12))
def test_largest(batch, wanted):
    values, valid = batch
    k = rows.row_count(valid).clamp(max=wanted)
    chosen = rows.largest(dirty(values, valid), valid, k)
    for row in range(len(values)):
        tokens = valid[row].nonzero().flatten().tolist()
        ranked = sorted(tokens, key=lambda token: (-values[row, token].item(), token))
        assert chosen[row].nonzero().flatten().tolist() == sorted(ranked[: k[row].item()])


NUMBERS = [0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e-45, 1e-40, -1e-40, 1e-8, 0.1, 0.3, 3.4e38, -3.4e38, 1.7e308]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=150)
@given(st.lists(st.floats(allow_nan=False) | st.sampled_from(NUMBERS), min_size=1, max_size=9), st.data())
def test_kth_largest_of_any_numbers(dtype, numbers, data):
    row = torch.tensor([numbers], dtype=torch.float64).to(dtype)
    valid = torch.tensor([data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers)))])
    for k, expected in enumerate(sorted(row[valid].tolist(), reverse=True), start=1):
        assert rows.kth_largest(dirty(row, valid), valid, torch.tensor([[k]])).item() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kth_largest_of_many(dtype):
    values = torch.randn(40, 300, dtype=dtype, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(40, 300, generator=torch.Generator().manual_seed(1)) < 0.7
    k = (rows.row_count(valid) * torch.linspace(0.01, 1.0, 40)[:, None]).ceil().long()
    ordered = values.masked_fill(~valid, -math.inf).sort(descending=True).values
    assert torch.equal(rows.kth_largest(values, valid, k), ordered.gather(-1, k - 1))


def test_kth_largest_out_of_range():
    values, valid = torch.tensor([[3.0, 1.0]] * 3), torch.tensor([[True, False]] * 2 + [[False, False]])
    got = rows.kth_largest(values, valid, torch.tensor([[2], [0], [1]]))
    assert got[[0, 2]].tolist() == [[-math.inf]] * 2
    assert got[1].isnan()
    assert not rows.largest(values, valid, torch.zeros(3, 1, dtype=torch.long)).any()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_nothing_at_all(shape):
    values, valid = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    k = rows.row_count(valid)
    assert [r.tolist() for r in rows.row_range(values, valid)] == [k.float().tolist()] * 2
    assert rows.largest(values, valid, k).shape == shape
    assert rows.kth_largest(values, valid, k).shape == k.shape


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_prepared(dtype, expected):
    values = torch.tensor([[1.5, math.inf, math.nan]], dtype=dtype, requires_grad=True)
    got = rows.prepared(values, torch.tensor([[True, False, False]]))
    assert got.dtype == expected
    assert not got.requires_grad
    assert got.tolist() == [[1.5, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (
            rows.check_tokens,
            (torch.zeros(3), torch.zeros(3)),
            r"x has shape \(3,\) and dtype torch\.float32; .*\(B, T\)",
        ),
        (
            rows.check_tokens,
            (torch.zeros(1, 3).long(), torch.zeros(1, 3)),
            r"x has shape \(1, 3\) and dtype torch\.int64",
        ),
        (
            rows.check_tokens,
            (torch.zeros(1, 3), torch.zeros(1, 2)),
            r"response_mask has shape \(1, 2\); .* x's \(1, 3\)",
        ),
        (rows.check_rows, (torch.zeros(3), 2), r"x has shape \(3,\); it must be \(2,\)"),
        (rows.check_range, (1.5, 0.0, 1.0), r"x is 1\.5; it must be in \[0, 1\]"),
        (rows.check_range, (math.nan, 0.0, 1.0), "x is nan"),
        (rows.check_non_negative, (-1.0,), r"x is -1\.0; it must be finite and >= 0"),
        (rows.check_non_negative, (math.inf,), "x is inf"),
        (rows.check_non_negative, (math.nan,), "x is nan"),
        (rows.check_choice, ("c", ("a", "b")), r"x is 'c'; it must be one of \('a', 'b'\)"),
    ],
)
def test_checks(check, arguments, message):
    with pytest.raises(ValueError, match=message):
        check("x", *arguments)
