# SPDX-License-Identifier: Apache-2.0
"""Ten thousand hostile responses: every one is scored, next to none runs out of time, and scores do not vary."""

from support.hostile import check, responses

RESPONSES = 10_000


def test_ten_thousand_responses():
    timeouts = [check(text, truth, seconds=0.5)["timeout"] for text, truth in responses(RESPONSES)]
    assert len(timeouts) == RESPONSES
    assert sum(timeouts) < 10


def test_the_same_responses_get_the_same_scores():
    sample = list(responses(150))
    first, second = ([check(text, truth) for text, truth in sample] for _ in range(2))
    assert first == second
