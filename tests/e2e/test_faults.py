# SPDX-License-Identifier: Apache-2.0
"""A run whose processes are killed: it stops and says why, and the same command continues it.

The other processes and moments are in `tests/faults`, which the default run leaves out.
"""

from support.attempts import attempt
from support.resumed import OVERRIDES, STEPS, check_whole, last_words, steps_by_attempt


def test_a_run_that_is_killed_twice_ends_like_one_that_is_not(easy_vqa, tmp_path):
    def start(number, *pauses):
        return attempt(tmp_path, easy_vqa, *OVERRIDES, number=number, pauses=pauses, steps=STEPS)

    with start(1, "generating:2") as first:
        died = first.kill_at("generating:2", "engine")
    assert died.status != 0
    assert "training stopped in step 2: vLLM's " in last_words(died)
    assert "engine process died" in last_words(died)
    assert "The checkpoint of step 1 is there: the same command continues with step 2" in last_words(died)

    with start(2, "saving:3") as second:
        died = second.kill_at("saving:3", "worker")
    assert died.status != 0
    assert "in step 3, while its checkpoint was written: a worker of the actor (process " in last_words(died)
    assert "The checkpoint of step 2 is there: the same command continues with step 3" in last_words(died)
    assert "Traceback" in died.output

    with start(3) as third:
        finished = third.end()
    assert finished.status == 0, finished.output[-4000:]
    assert f"resuming from {tmp_path}/checkpoints/global_step_2; the metrics up to here are kept in" in finished.output
    assert steps_by_attempt(tmp_path) == [[1], [2], [3, 4]]
    check_whole(tmp_path, in_flight=[2, 3])
