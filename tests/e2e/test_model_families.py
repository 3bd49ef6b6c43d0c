# SPDX-License-Identifier: Apache-2.0
"""The real main_ppo on a tiny random model of other families: it trains, and rollout and actor are one model.

The weights are random, so the text means nothing: responses are rewarded for their length. Which families the actor
computes rightly is shown in `tests/regression`; here the rollout has its own implementation of each, is sent the
weights after every step, and must give the tokens that it samples the same log-probabilities as the actor.
"""

import math

import pytest
from support import families
from support.runs import train

# Without DAPO's group filter the prompts of a step are those of the data set, in order.
PGPO = ["+perception=pgpo", "algorithm.filter_groups.enable=False"]
LENGTH = ["reward.custom_reward_function.path=pkg://support.length_reward"]
# Adam moves every weight by about this in a step: a rollout that missed some would be off.
FAST = ["actor_rollout_ref.actor.optim.lr=1e-2"]
# vLLM computes linear attention on the CPU in no other precision.
BFLOAT16 = ["actor_rollout_ref.rollout.dtype=bfloat16"]
# Family: more overrides, and how far the log-probabilities of rollout and actor correlate at least. In bfloat16 it was
# 0.9993 to 0.9997, and 0.989 with convolutions that were not sent; with experts, of which precision chooses others for
# some tokens, 0.979 to 0.995 (transformers in both precisions: 0.96), and 0.44 with experts that were sent wrongly.
RUNS = {
    "qwen3_vl": ([], 0.999),
    "qwen3_vl_moe": ([], 0.999),
    "glm4v": ([], 0.999),
    "qwen3_5": (BFLOAT16, 0.997),
    "qwen3_5_moe": ([*BFLOAT16, "perception.min_rollout_correlation=null"], 0.95),
}


@pytest.mark.parametrize("family", RUNS)
def test_it_trains(family, easy_vqa, tmp_path):
    overrides, correlation = RUNS[family]
    model = f"actor_rollout_ref.model.path={families.path(family)}"
    run = train(tmp_path, easy_vqa, *PGPO, *LENGTH, *FAST, model, *overrides, steps=2)
    assert run.status == 0, run.output[-4000:]
    assert sorted(run.steps) == [1, 2]
    for logged in run.steps.values():
        assert math.isfinite(logged["actor/pg_loss"])
        assert 0 < logged["actor/grad_norm"] < math.inf
        assert logged["perception/image_rows"] == 1.0
        assert logged["perception/visual_dependency/mean"] > 0
        assert logged["perception/token_weight/max"] > 1
        assert logged["perception/rollout_actor_log_prob_corr"] >= correlation
