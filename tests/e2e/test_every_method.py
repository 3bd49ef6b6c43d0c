# SPDX-License-Identifier: Apache-2.0
"""Every method through the real main_ppo: finite, its own metrics logged, its signals where they belong.

Methods that go together share a run; VEPO's is in `test_async_trainers.py`, PAPO's, PEPO's and ToR's on the installed
verl in `test_two_nodes.py`. Theirs here is made on the oldest verl that is supported: it has a pass of its own, a loss
term, and hidden states measured in verl's own pass. Every response ends in an image token, which is masked and counted.
"""

import math
import os
import re

import pytest
from support import image_token_loop
from support.runs import train
from support.tiny import ROOT
from support.verl_releases import folder_of

SIMILARITY = "perception/visual_similarity_cosine"
DEPENDENCY = "perception/visual_dependency"
OLDEST = "0.9.0"
INSTALLED = "installed"
# Group: the verl it runs on, overrides, metrics that only these methods log, and methods whose weights multiply
# advantages.
RUNS = {
    "papo_d": (
        OLDEST,
        ["perception.methods=[papo,pepo,tor]", "perception.base_estimator=rloo"],
        [
            "actor/perception/papo/perception_kl",
            "actor/perception/papo/entropy",
            f"{SIMILARITY}_all_pairwise_mean/mean",
            "perception/entropy/mean",
            "perception/entropy_top_p_0.95/mean",
        ],
        ["pepo", "tor"],
    ),
    "dvrp": (
        INSTALLED,
        [
            # VPPO's own recipe and masks.
            "perception.methods=[dvrp,pgpo,vppo,vgpo]",
            "recipe=dapo",
            "perception.ablation.scope=response",
            "perception.base_estimator=rloo",
            "perception.response_only_logits=True",
        ],
        [
            f"{DEPENDENCY}/mean",
            "actor/perception/dvrp/necessity_kl",
            "actor/perception/dvrp/robustness_kl",
            f"{DEPENDENCY}_noised/mean",
            "actor/perception/vppo/entropy",
            f"{SIMILARITY}_last_prototype/mean",
        ],
        ["pgpo", "vppo", "vgpo"],
    ),
}
RESPONSES = 16


def environment(release):
    """Puts another verl before the installed one, and has every process say which it has."""
    if release == INSTALLED:
        return {}
    path = os.pathsep.join([str(folder_of(release)), str(ROOT / "tests")])
    return {"PYTHONPATH": path, "VERL_USE_EXTERNAL_MODULES": "support.say_verl"}


@pytest.mark.parametrize("group", RUNS)
def test_it_trains(group, easy_vqa, tmp_path):
    release, overrides, metrics, weighting = RUNS[group]
    overrides = [f"+perception={group}", *overrides, *image_token_loop.OVERRIDES]
    run = train(tmp_path, easy_vqa, *overrides, steps=2, environment=environment(release))
    assert run.status == 0, run.output[-4000:]
    if release != INSTALLED:
        said = set(re.findall(r"verl comes from (\S+)", run.output))
        assert said == {str(folder_of(release) / "verl" / "__init__.py")}
    assert sorted(run.steps) == [1, 2]
    for logged in run.steps.values():
        assert all(math.isfinite(logged[name]) for name in ("actor/loss", "actor/pg_loss", "actor/grad_norm"))
        # Without a group filter every group of a step may be all right or all wrong, and teach nothing.
        assert logged["actor/grad_norm"] > 0 or logged["critic/advantages/max"] < 0.1
        assert logged["perception/image_rows"] == 1.0
        assert logged["perception/image_tokens_masked"] == RESPONSES
        assert logged["perception/rollout_actor_log_prob_corr"] >= 0.999
        assert all(math.isfinite(logged[name]) for name in metrics)
        assert logged["timing_s/ablated_log_prob"] > 0
    for method in weighting:
        # PEPO's weights grow in from 1, so the first step's are all 1.
        last = run.steps[2]
        assert last[f"perception/{method}/weight_max"] > last[f"perception/{method}/weight_min"]
