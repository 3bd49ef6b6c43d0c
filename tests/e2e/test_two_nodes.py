# SPDX-License-Identifier: Apache-2.0
"""PAPO-G with everything on, and PEPO and ToR beside it, by the real main_ppo over two Ray nodes.

Each node has an environment of its own, and the driver that starts the run has nothing of it but the trainer.
"""

import math

import pytest
from support.cluster import bare, cluster
from support.measured import MEASURED, check_that_no_image_is_fetched, check_that_the_step_is_told
from support.runs import FOREGROUND, train
from support.tiny import ROOT

from verl_ext.platforms.cpu.environment import ENVIRONMENT


@pytest.fixture(scope="module")
def actors_and_run(easy_vqa, tmp_path_factory):
    """(the actors as (class, name, node), the finished run)."""
    folder = tmp_path_factory.mktemp("two_nodes")
    variables = "ray_kwargs.ray_init.runtime_env.env_vars"
    trainer = {**MEASURED, "PYTHONPATH": str(ROOT / "tests")}
    node = {**ENVIRONMENT, **FOREGROUND, **trainer}
    with cluster(node, node) as ray:
        run = train(
            folder,
            easy_vqa,
            "+perception=papo_g",
            "perception.methods=[papo,pepo,tor]",
            "perception.papo.entropy_coef=0.03",
            "trainer.v1.trainer_mode=perception_measuring_sync",
            "trainer.nnodes=2",
            "trainer.n_gpus_per_node=1",
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
            "ray_kwargs.ray_init.num_cpus=null",
            "ray_kwargs.ray_init.num_gpus=null",
            f"+ray_kwargs.ray_init.address={ray.address}",
            f"+{variables}.VERL_FILE_LOGGER_PATH={folder / 'metrics.jsonl'}",
            only=bare(folder, **trainer),
        )
        actors = ray.actors() if run.status == 0 else []
    assert run.status == 0, run.output[-4000:]
    return actors, run


def test_the_ranks_are_on_two_nodes(actors_and_run):
    nodes = {name: node for kind, name, node in actors_and_run[0] if kind.endswith("WorkerDict")}
    assert len(nodes) == 2
    assert len(set(nodes.values())) == 2


def test_it_trains(actors_and_run):
    steps = actors_and_run[1].steps
    assert sorted(steps) == [1, 2]
    for metrics in steps.values():
        assert all(math.isfinite(metrics[name]) for name in ("actor/loss", "actor/grad_norm", "actor/kl_loss"))
        assert metrics["actor/perception/papo/perception_kl"] > 0
        assert metrics["actor/perception/papo/perception_kl_loss_coef"] == -0.02
        assert metrics["actor/perception/papo/entropy"] > 0
        assert metrics["perception/visual_dependency/mean"] > 0
        assert abs(metrics["perception/visual_similarity_cosine_all_pairwise_mean/mean"]) > 0
        assert metrics["perception/entropy/mean"] > 0
        assert metrics["perception/entropy_top_p_0.95/mean"] > 0
        assert metrics["perception/image_rows"] == 1.0
        assert metrics["perception/rollout_actor_log_prob_corr"] >= 0.999
        assert metrics["timing_s/ablated_log_prob"] > 0
    for method in ("pepo", "tor"):
        assert steps[2][f"perception/{method}/weight_max"] > steps[2][f"perception/{method}/weight_min"]


def test_the_ablated_pass_fetches_no_images(actors_and_run):
    check_that_no_image_is_fetched(actors_and_run[1])


def test_the_workers_are_told_the_step(actors_and_run):
    check_that_the_step_is_told(actors_and_run[1])
