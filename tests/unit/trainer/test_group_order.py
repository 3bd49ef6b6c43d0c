# SPDX-License-Identifier: Apache-2.0
"""Groups of responses lie side by side, on one rank, and every optimizer step keeps its rows."""

import random

import pytest

from verl_ext.trainer.group_order import Row, by_first, rows_of, together


def batch(groups, seed=0):
    """Rows of groups of the given sizes, mixed, of various lengths."""
    draw = random.Random(seed)
    rows = [
        Row(group, 100 + group, 100 + group + draw.randint(1, 50))
        for group, size in enumerate(groups)
        for _ in range(size)
    ]
    draw.shuffle(rows)
    return rows


def cuts(rows, order, ranks):
    """How often a group is begun, on any rank."""
    per_rank = len(rows) // ranks
    begun = 0
    for rank in range(ranks):
        own = [rows[index].group for index in order[rank * per_rank : (rank + 1) * per_rank]]
        begun += sum(one != other for one, other in zip([None, *own], own, strict=False))
    return begun


@pytest.mark.parametrize(("ranks", "steps"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (2, 4)])
def test_steps_keep_their_rows(ranks, steps):
    rows = batch([5] * 16)
    order = together(rows, ranks, steps)
    assert sorted(order) == list(range(80))
    per_rank = 80 // ranks
    size = per_rank // steps
    for step in range(steps):
        places = {rank * per_rank + step * size + i for rank in range(ranks) for i in range(size)}
        assert {order[place] for place in places} == places


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_whole_groups_are_never_cut_where_they_fit(ranks):
    rows = batch([5] * 16)
    assert cuts(rows, together(rows, ranks, 1), ranks) == 16


def test_ragged_groups_are_cut_only_where_none_has_room():
    rows = batch([5, 3, 1, 5, 2, 4, 4])
    order = together(rows, 2, 1)
    assert sorted(order) == list(range(24))
    assert cuts(rows, order, 2) <= 8


def test_more_rows_of_a_group_than_a_rank_has():
    rows = batch([12, 2, 2])
    order = together(rows, 2, 1)
    assert sorted(order) == list(range(16))
    assert cuts(rows, order, 2) == 4


def test_ranks_have_as_much_to_do():
    """One long prompt counts once, however many responses it has."""
    long = [Row("long", 10_000, 10_010) for _ in range(4)]
    short = [Row(group, 1_000, 2_250) for group in range(3) for _ in range(4)]
    order = together([*long, *short], 2, 1)
    halves = [{([*long, *short][i]).group for i in half} for half in (order[:8], order[8:])]
    assert len(halves[0]) == len(halves[1]) == 2


def test_by_first_is_stable_and_keeps_groups_in_the_order_of_their_first_rows():
    rows = [Row(group, 1, 2) for group in "abacbb"]
    assert by_first(rows) == [0, 2, 1, 4, 5, 3]


def test_rows_of_a_batch():
    tags = [{"prompt_len": 7, "seq_len": 9}, {"prompt_len": 7, "seq_len": 8}, {"prompt_len": 9, "seq_len": 11}]
    rows = rows_of(["a_b_0_0", "a_b_1_0", "a_b_1_1"], tags)
    assert [row.group for row in rows] == [("a_b", 7), ("a_b", 7), ("a_b", 9)]
    assert [(row.prompt, row.length) for row in rows] == [(7, 9), (7, 8), (9, 11)]
