# SPDX-License-Identifier: Apache-2.0
"""The asynchronous trainers of the real main_ppo: rollouts run ahead, on the same devices or on their own."""

import json
import math

import pytest
from support import image_token_loop
from support.measured import MEASURED
from support.runs import train

COLOCATED = [
    "+perception=vepo",
    "perception.methods=[vepo,pepo]",
    "trainer.v1.trainer_mode=perception_colocate_async",
]
# Two updates between weight syncs: the second is far from the weights that the old log-probs come from.
SEPARATE = [
    "+perception=papo_g",
    "perception.ablation.kind=drop_vision",
    "trainer.v1.trainer_mode=perception_measuring_separate_async",
    "trainer.v1.separate_async.parameter_sync_step=2",
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.rollout.n_gpus_per_node=1",
    "actor_rollout_ref.rollout.checkpoint_engine.backend=tcp",
    "ray_kwargs.ray_init.num_gpus=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.actor.optim.lr=2e-3",
    "perception.min_rollout_correlation=null",
    # A row is a micro-batch of its own: padded to the longest of others, it would have its sums in another order.
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
    # Of its first prompts so many have no image that every second update of a step has one of them.
    "data.seed=27",
    *image_token_loop.OVERRIDES,
]


@pytest.fixture(scope="module")
def colocated(easy_vqa, tmp_path_factory):
    return train(tmp_path_factory.mktemp("colocated"), easy_vqa, *COLOCATED, steps=3)


@pytest.fixture(scope="module")
def separate(easy_vqa, text_only, tmp_path_factory):
    """Its rows have an image or none."""
    mixed = f"data.train_files=[{easy_vqa / 'train.parquet'},{text_only / 'train.parquet'}]"
    return train(tmp_path_factory.mktemp("separate"), easy_vqa, *SEPARATE, mixed, steps=3, environment=MEASURED)


@pytest.mark.parametrize("name", ["colocated", "separate"])
def test_it_trains(name, request):
    run = request.getfixturevalue(name)
    assert run.status == 0, run.output[-6000:]
    assert sorted(run.steps) == [1, 2, 3]
    for metrics in run.steps.values():
        assert all(math.isfinite(metrics[key]) for key in ("actor/pg_loss", "actor/grad_norm"))
        # VEPO and PEPO measure in verl's own pass.
        assert ("timing_s/ablated_log_prob" in metrics) == (name == "separate")
        assert math.isfinite(metrics["perception/rollout_actor_log_prob_corr"])


@pytest.mark.parametrize(("name", "count"), [("colocated", 0), ("separate", 16)])
def test_sampled_image_tokens_are_counted(name, count, request):
    """Over all updates of a step: every response of the one run ends in such a token."""
    steps = request.getfixturevalue(name).steps.values()
    assert [metrics["perception/image_tokens_masked"] for metrics in steps] == [count] * 3


def test_signals_are_measured_in_the_colocated_trainer(colocated):
    for metrics in colocated.steps.values():
        assert metrics["perception/visual_jsd/mean"] > 0
        assert metrics["perception/ablated_entropy/mean"] > 0
        assert metrics["perception/visual_similarity_cosine_all_pairwise_mean/mean"] != 0
        assert metrics["perception/rollout_actor_log_prob_corr"] > 0.95
    last = colocated.steps[3]
    for method in ("vepo", "pepo"):
        assert last[f"perception/{method}/weight_max"] > last[f"perception/{method}/weight_min"]


def test_both_views_come_from_the_weights_of_the_old_log_probs(separate):
    """Where a row has no image the two views are the same input, so only other weights could tell them apart."""
    lines = (separate.folder / "checkpoints" / "views.jsonl").read_text().splitlines()
    views = [json.loads(line) for line in lines]
    assert [(view["step"], view["trigger"]) for view in views] == [(step, k) for step in (1, 2, 3) for k in (0, 1)]
    blind = [view["without_image"] for view in views if view["trigger"] == 1 and view["without_image"] is not None]
    assert blind
    assert max(blind) < 1e-6
    assert max(view["with_image"] or 0.0 for view in views) > 0.01
    # The second update of a step starts from other weights than the old log-probs'.
    assert max(abs(metrics["actor/ppo_kl"]) for metrics in separate.steps.values()) > 1e-3
