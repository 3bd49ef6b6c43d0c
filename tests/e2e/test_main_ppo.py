# SPDX-License-Identifier: Apache-2.0
"""The real main_ppo on the CPU: Ray, FSDP2 on gloo, TransferQueue, the real vLLM."""

import math

import pytest
from support.measured import MEASURED, check_that_no_image_is_fetched, check_that_the_step_is_told, recorded
from support.runs import train

# Without DAPO's group filter the prompts of a step are those of the data set, in order.
PGPO = ["+perception=pgpo", "algorithm.filter_groups.enable=False"]


def queue_sizes(run):
    return recorded(run, "transfer_queue")


@pytest.fixture(scope="session")
def vanilla(easy_vqa, tmp_path_factory):
    run = train(
        tmp_path_factory.mktemp("grpo"),
        easy_vqa,
        "algorithm.adv_estimator=grpo",
        "trainer.v1.trainer_mode=measuring_sync",
        environment=MEASURED,
    )
    assert run.status == 0, run.output[-4000:]
    return run


@pytest.fixture(scope="session")
def pgpo(easy_vqa, tmp_path_factory):
    run = train(
        tmp_path_factory.mktemp("pgpo"),
        easy_vqa,
        *PGPO,
        "trainer.v1.trainer_mode=perception_measuring_sync",
        "trainer.test_freq=3",
        "perception.record_every=2",
        steps=3,
        environment=MEASURED,
    )
    assert run.status == 0, run.output[-4000:]
    return run


def test_vanilla_verl_runs_as_if_the_package_were_absent(vanilla):
    assert sorted(vanilla.steps) == [1, 2]
    names = {name for metrics in vanilla.steps.values() for name in metrics}
    assert not [name for name in names if "perception" in name or "ablated" in name]


def test_pgpo_trains(pgpo):
    assert sorted(pgpo.steps) == [1, 2, 3]
    for metrics in pgpo.steps.values():
        assert math.isfinite(metrics["actor/pg_loss"])
        assert math.isfinite(metrics["actor/grad_norm"])
        assert metrics["timing_s/ablated_log_prob"] > 0
        assert metrics["perception/image_rows"] == 1.0
        assert metrics["perception/visual_dependency/mean"] > 0
        assert metrics["perception/token_weight/max"] > 1


def test_what_computes_the_credit_stands_in_verls_configuration(pgpo, vanilla):
    assert "'adv_estimator': 'pgpo'" in pgpo.output
    assert "'adv_estimator': 'grpo'" in vanilla.output


def test_rollout_and_actor_agree(pgpo):
    assert all(metrics["perception/rollout_actor_log_prob_corr"] >= 0.999 for metrics in pgpo.steps.values())


def test_the_four_responses_of_a_group_share_their_prompt(pgpo):
    for metrics in pgpo.steps.values():
        assert metrics["perception/shared_prompt_fraction"] == pytest.approx(0.75)
        assert metrics["perception/shared_tokens_saved"] > 0
        assert not any(name.startswith("actor/perception/") and "_tokens" in name for name in metrics)


def test_validation_reports_accuracy(pgpo):
    assert "val-core/easy_vqa/acc/mean@1" in pgpo.steps[3]


def test_no_extra_image_bytes_pass_through_the_queue(vanilla, pgpo):
    for measured in queue_sizes(pgpo):
        extra = set(measured["bytes"]) - set(queue_sizes(vanilla)[0]["bytes"])
        assert extra == {"ablated_log_prob", "has_image"}
        added = sum(measured["bytes"][name] for name in extra)
        assert added == 4 * measured["response_tokens"] + measured["rows"]
        assert added < 0.01 * measured["bytes"]["multi_modal_inputs"]


def test_the_four_responses_of_a_group_have_its_picture_once(vanilla, pgpo):
    (verls,), (ours,) = (
        {measured["bytes"]["multi_modal_inputs"] / measured["rows"] for measured in queue_sizes(run)}
        for run in (vanilla, pgpo)
    )
    assert verls / 4 < ours < verls / 4 + 32


def test_the_passes_behind_the_clean_one_fetch_no_images(pgpo):
    check_that_no_image_is_fetched(pgpo)


def test_the_workers_are_told_the_step(pgpo):
    check_that_the_step_is_told(pgpo)


def test_the_timers_keep_the_two_passes_apart(pgpo):
    for metrics in pgpo.steps.values():
        parts = sum(metrics[f"timing_s/{name}"] for name in ("gen", "old_log_prob", "ablated_log_prob", "update_actor"))
        assert metrics["timing_s/old_log_prob"] > 0
        assert parts <= metrics["timing_s/step"]


def test_token_records_are_written(pgpo):
    from verl_ext.report.token_view import latest_records

    records = latest_records(pgpo.folder / "checkpoints" / "perception_tokens")
    assert {record["step"] for record in records} == {2}
    for record in records:
        assert len(record["tokens"]) == len(record["visual_dependency"]) == len(record["weight"])
