# SPDX-License-Identifier: Apache-2.0
"""A run whose processes are killed: it stops and says why, and the same command continues it.

The other processes and moments, and runs that go on to their ends, are in `tests/faults`.
"""

import re

from support.attempts import attempt
from support.resumed import OVERRIDES, STEPS, check_whole, last_words, steps_by_attempt


def test_a_run_that_is_killed_says_why_and_the_same_command_continues_it(easy_vqa, tmp_path):
    def start(number, pause):
        return attempt(tmp_path, easy_vqa, *OVERRIDES, number=number, pauses=[pause], steps=STEPS)

    with start(1, "saving:2") as first:
        died = first.kill_at("saving:2", "worker")
        assert first.all_ended(within=60)
    assert died.status != 0
    assert "training stopped in step 2, while its checkpoint was written: a worker of the actor" in last_words(died)
    assert "The checkpoint of step 1 is there: the same command continues with step 2" in last_words(died)
    assert "Traceback" in died.output

    with start(2, "generating:4") as second:
        died = second.kill_at("generating:4", "engine")
        assert second.all_ended(within=60)
    assert died.status != 0
    assert f"resuming from {tmp_path}/checkpoints/global_step_1; the metrics up to here are kept in" in died.output
    assert re.search(r"training stopped in step 4: (vLLM's |the vLLM server )", last_words(died))
    assert "engine process died" in last_words(died)
    assert "The checkpoint of step 3 is there: the same command continues with step 4" in last_words(died)
    assert steps_by_attempt(tmp_path) == [[1], [2, 3]]
    check_whole(tmp_path, in_flight=[2], last=3)
