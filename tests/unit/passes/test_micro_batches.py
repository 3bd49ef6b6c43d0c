# SPDX-License-Identifier: Apache-2.0
"""Micro-batches of a budget of tokens that keep groups together."""

import pytest

from verl_ext.passes.fsdp.micro_batches import Sizes, in_bins, in_more_bins


def groups_of(*sizes):
    """Rows numbered through, group by group."""
    found, first = [], 0
    for size in sizes:
        found.append(list(range(first, first + size)))
        first += size
    return found


def flat(bins):
    return sorted(row for parts in bins for part in parts for row in part)


def test_a_prompt_counts_once():
    sizes = Sizes([100] * 5, [10, 20, 30, 40, 50])
    assert sizes.of([0, 1, 2]) == 160
    assert sizes.of_all([[0, 1], [2]]) == 130 + 130
    assert Sizes([1] * 3, [1000] * 3).of([0, 1, 2]) == 3003  # too little to share


def test_groups_stay_together_and_bins_are_even():
    groups, sizes = groups_of(4, 4, 4, 4), Sizes([100] * 16, [25] * 16)
    bins = in_bins(groups, sizes, 400)
    assert [len(parts) for parts in bins] == [2, 2]
    assert sorted(part for parts in bins for part in parts) == groups


def test_a_group_larger_than_a_bin_is_cut_into_few_parts():
    bins = in_bins(groups_of(8), Sizes([100] * 8, [50] * 8), 260)
    assert sorted(len(part) for parts in bins for part in parts) == [2, 3, 3]
    assert all(Sizes([100] * 8, [50] * 8).of_all(parts) <= 260 for parts in bins)


@pytest.mark.parametrize("most", [150, 200, 333, 1000, 5000])
def test_no_bin_is_over_its_budget_and_no_row_lost(most):
    groups = groups_of(5, 1, 3, 8, 2)
    sizes = Sizes([10 * (index % 10) + 5 for index in range(19)], [7 * (index % 7) + 1 for index in range(19)])
    prompts = {row: sizes.prompts[rows[0]] for rows in groups for row in rows}
    sizes = Sizes([prompts[row] for row in range(19)], sizes.responses)
    bins = in_bins(groups, sizes, most)
    assert flat(bins) == list(range(19))
    assert all(sizes.of_all(parts) <= most for parts in bins)
    loads = [sizes.of_all(parts) for parts in bins]
    assert loads == sorted(loads, reverse=True)
    for count in range(len(bins), 20):
        more = in_more_bins(bins, sizes, count)
        assert len(more) == count
        assert flat(more) == list(range(19))
        assert all(sizes.of_all(parts) <= most for parts in more)


def test_more_bins_than_rows():
    sizes = Sizes([10] * 2, [5] * 2)
    with pytest.raises(ValueError, match="more micro-batches than this one has rows"):
        in_more_bins(in_bins(groups_of(2), sizes, 100), sizes, 3)
