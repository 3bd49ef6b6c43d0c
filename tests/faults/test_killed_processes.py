# SPDX-License-Identifier: Apache-2.0
"""Every process of a run, killed in the middle of a step and in the middle of a checkpoint; each restart goes on."""

import re

import pytest
from support.attempts import attempt
from support.resumed import OVERRIDES, STEPS, check_whole, last_words, metrics, prompts

NAMES = {
    "worker": r"a worker of the actor \(process",
    # What Ray says of it or, where Ray is slow, that nothing answers at its address.
    "server": r"the vLLM server \(process|vLLM's server at ",
    "engine": "engine process died",
    "runner": r"the training process \(verl's TaskRunner\) \(process",
    "agent_loop": r"an agent-loop worker \(process",
    "reward": r"a reward worker \(process",
}
MID_STEP = {"worker": "backward:2", "driver": "updating:2"}
"""Where they have something to do; the others generate responses, or wait for them."""
TWO_RANKS = ["trainer.n_gpus_per_node=2", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2"]


@pytest.fixture(scope="module")
def uninterrupted(easy_vqa, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    with attempt(folder, easy_vqa, *OVERRIDES, number=1, steps=STEPS) as run:
        finished = run.end(600)
    assert finished.status == 0, finished.output[-4000:]
    return folder


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("victim", ["worker", "server", "engine", "agent_loop", "reward", "runner", "driver"])
def test_killed_in_a_step_and_in_a_checkpoint(victim, uninterrupted, easy_vqa, tmp_path, note):
    moments = [MID_STEP.get(victim, "generating:2"), "saving:3"]
    for number, moment in enumerate(moments, start=1):
        with attempt(tmp_path, easy_vqa, *OVERRIDES, number=number, pauses=[moment], steps=STEPS) as run:
            died = run.kill_at(moment, victim)
            note(victim, moment, died)
            assert died.status != 0
            if victim != "driver":
                assert re.search(NAMES[victim], last_words(died))
                assert "the same command continues with step" in last_words(died)
            assert run.all_ended(within=60)
    with attempt(tmp_path, easy_vqa, *OVERRIDES, number=3, steps=STEPS) as run:
        finished = run.end(600)
    assert finished.status == 0, finished.output[-4000:]
    # Who is killed while responses are generated has nothing measured in that step.
    check_whole(tmp_path, in_flight=[2, 3] if victim in MID_STEP else [3])
    assert set(metrics(tmp_path)[STEPS]) == set(metrics(uninterrupted)[STEPS])
    for step in range(1, STEPS + 1):
        assert prompts(tmp_path, step) == prompts(uninterrupted, step)
        assert metrics(tmp_path)[step]["actor/lr"] == metrics(uninterrupted)[step]["actor/lr"]


def test_a_rank_that_is_killed_while_the_other_waits_for_its_gradients(easy_vqa, tmp_path, note):
    with attempt(tmp_path, easy_vqa, *OVERRIDES, *TWO_RANKS, number=1, pauses=["backward:2"], steps=STEPS) as run:
        died = run.kill_at("backward:2", "worker")
        note("worker, one of two ranks", "backward:2", died)
        assert died.status != 0
        assert re.search(NAMES["worker"], last_words(died))
        assert "The checkpoint of step 1 is there" in last_words(died)
        assert run.all_ended(within=60)
