# SPDX-License-Identifier: Apache-2.0
"""Which responses are recorded."""

from hypothesis import given
from hypothesis import strategies as st

from verl_ext.records.choice import choose, prompt_id

BATCHES = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([0.0, 0.1, 0.9, 1.0])), min_size=1, max_size=40)


def test_the_best_and_the_worst_of_the_first_prompts():
    prompts, rewards = list("bbaaacc"), [1.0, 0.0, 0.5, 0.9, 0.1, 1.0, 1.0]
    assert choose(prompts, rewards, (), 2) == [3, 4]
    assert choose(prompts, rewards, (), 5) == [0, 1, 3, 4, 5]


def test_watched_prompts_come_on_top():
    prompts, rewards = list("bbaac"), [1.0, 0.0, 0.5, 0.5, 0.3]
    assert choose(prompts, rewards, {"c"}, 0) == [4]
    assert choose(prompts, rewards, {"c"}, 1) == [2, 4]


@given(BATCHES, st.sets(st.sampled_from("abcdef")), st.integers(0, 50))
def test_never_more_than_asked_and_two_a_prompt(batch, watched, fresh):
    prompts, rewards = zip(*batch, strict=True)
    chosen = choose(prompts, rewards, watched, fresh)
    assert len([row for row in chosen if prompts[row] not in watched]) <= fresh
    assert all([prompts[row] for row in chosen].count(prompt) <= 2 for prompt in set(prompts))
    assert {prompts[row] for row in chosen} >= watched & set(prompts)
    assert chosen == sorted(set(chosen))


@given(BATCHES, st.randoms())
def test_the_order_of_the_batch_does_not_matter(batch, random):
    shuffled = random.sample(batch, len(batch))
    found = [sorted(rows[row] for row in choose(*zip(*rows, strict=True), (), 3)) for rows in (batch, shuffled)]
    assert found[0] == found[1]


def test_names_tell_prompts_images_and_sources_apart():
    names = {prompt_id(ids, source, index) for ids in ([1, 2], [12]) for source in ("x", "y") for index in (0, 1)}
    assert len(names) == 8
    assert prompt_id([1, 2], "x", 0) == prompt_id((1, 2), "x", 0)
