# SPDX-License-Identifier: Apache-2.0
"""One short run of the comparison, from its questions to the result that its page is written from."""

import json
import math

from study.arms import BY_NAME
from study.plan import Plan
from study.results import Run
from study.run import KEPT, Folders, Job, run_all

ARM = "pgpo_shuffled"
PLAN = Plan(steps=2, checkpoint_every=1, responses=4, train=16, test=8)


def test_a_run_is_trained_evaluated_and_kept(tmp_path):
    folders = Folders(tmp_path / "results", tmp_path / "work")
    run_all([Job(BY_NAME[ARM], 1)], folders, at_a_time=1, plan=PLAN)
    path = folders.result(f"{ARM}-1")
    run = Run(ARM, 1, json.loads(path.read_text()))
    assert run.data["overrides"] == list(BY_NAME[ARM].with_seed(1))
    assert run.data["settings"] == json.loads(json.dumps(PLAN.settings()))
    assert list(run.data["steps"]) == list(KEPT)
    assert [step for step, _ in run.curve(0.5)] == [0, 1, 2]
    assert all(0 <= accuracy <= 1 for _, accuracy in run.curve(0.5))
    assert all(0 <= run.accuracy(view, kind) <= 1 for view in ("image", "blind") for kind in ("yes_no", "color"))
    assert run.visual_dependency > 0
    assert run.step_seconds > 0
    assert run.tokens_a_second > 0
    assert math.isfinite(run.mean("actor/grad_norm"))
    assert run.mean("perception/token_weight/max") > 1

    kept = path.stat().st_mtime_ns
    assert not list((folders.work / f"{ARM}-1").glob("global_step_*"))
    run_all([Job(BY_NAME[ARM], 1)], folders, at_a_time=1, plan=PLAN)
    assert path.stat().st_mtime_ns == kept
