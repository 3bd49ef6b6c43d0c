# SPDX-License-Identifier: Apache-2.0
"""A whole run on the oldest verl that is supported."""

import math
import os
import re

from support.runs import train
from support.tiny import ROOT
from support.verl_releases import folder_of


def test_pgpo_with_papo_trains_on_verl_0_9_0(easy_vqa, tmp_path):
    oldest = folder_of("0.9.0")
    run = train(
        tmp_path,
        easy_vqa,
        "+perception=pgpo",
        "perception.methods=[pgpo,papo]",
        "algorithm.filter_groups.enable=False",
        "perception.record_every=1",
        environment={
            "PYTHONPATH": os.pathsep.join([str(oldest), str(ROOT / "tests")]),
            "VERL_USE_EXTERNAL_MODULES": "support.say_verl",
        },
    )
    assert run.status == 0, run.output[-4000:]
    said = set(re.findall(r"verl comes from (\S+)", run.output))
    assert said == {str(oldest / "verl" / "__init__.py")}
    assert sorted(run.steps) == [1, 2]
    for metrics in run.steps.values():
        assert math.isfinite(metrics["actor/grad_norm"])
        assert metrics["perception/visual_dependency/mean"] > 0
        assert metrics["perception/rollout_actor_log_prob_corr"] > 0.99
