# SPDX-License-Identifier: Apache-2.0
"""verl's own estimator, then the method's weights, through a real TransferQueue."""

import pytest
import torch
from support import queue
from support.configuration import configuration
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ext.integration.config import parse
from verl_ext.integration.trainers import PerceptionTrainerSync
from verl_ext.methods import pgpo
from verl_ext.signals import sampled_k3

LENGTHS = [7, 5, 9, 3, 1, 6, 8, 4]


@pytest.fixture(scope="module", autouse=True)
def transfer_queue():
    with queue.transfer_queue(configuration("+perception=pgpo")):
        yield


def trainer(cls, *overrides):
    """A trainer without workers: only what its advantage stage reads."""
    config = configuration(*overrides)
    made = object.__new__(cls)
    made.config = config
    made.global_steps = 3
    made._warned_without_images = False
    if "perception" in config:
        made.perception = parse(config.perception)
    return made


def computed(maker, rows, padding=0):
    meta = queue.put(rows, padding=padding)
    metrics = {}
    maker._compute_advantage(meta, metrics=metrics)
    result = queue.advantages(meta)
    queue.clear(meta)
    return result, metrics


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def ours(metrics):
    return {name: value for name, value in metrics.items() if name.startswith("perception/")}


@pytest.fixture(scope="module")
def vanilla():
    return trainer(PPOTrainerSync, "algorithm.adv_estimator=grpo")


def test_pgpo_without_images_is_grpo(vanilla):
    rows = queue.recorded_rows(LENGTHS, images=False)
    expected, _ = computed(vanilla, rows)
    weighted, metrics = computed(trainer(PerceptionTrainerSync, "+perception=pgpo"), rows)
    assert same(weighted, expected)
    assert metrics["perception/token_weight/effective_fraction"] == 1.0
    assert any(values.abs().max() > 0 for values in expected.values())


def test_papo_leaves_advantages_to_verl(vanilla):
    rows = queue.recorded_rows(LENGTHS)
    assert same(computed(trainer(PerceptionTrainerSync, "+perception=papo_g"), rows)[0], computed(vanilla, rows)[0])


def test_pgpo_multiplies_by_its_weights(vanilla):
    rows = queue.recorded_rows(LENGTHS)
    expected, _ = computed(vanilla, rows)
    weighted, _ = computed(trainer(PerceptionTrainerSync, "+perception=pgpo"), rows)
    for (key, advantage), row in zip(expected.items(), rows, strict=True):
        dependency = sampled_k3(row["old_log_probs"], row["ablated_log_prob"])[None]
        weight = pgpo.token_weights(dependency, torch.ones_like(dependency))[0]
        torch.testing.assert_close(weighted[key], advantage * weight)


@pytest.mark.parametrize("estimator", ["rloo", "reinforce_plus_plus"])
def test_any_base_estimator_of_verl_can_be_weighted(estimator):
    rows = queue.recorded_rows(LENGTHS, images=False)
    expected, _ = computed(trainer(PPOTrainerSync, f"algorithm.adv_estimator={estimator}"), rows)
    weighted, _ = computed(
        trainer(PerceptionTrainerSync, "+perception=pgpo", f"perception.base_estimator={estimator}"), rows
    )
    assert same(weighted, expected)


def test_row_order_and_padding_rows_change_nothing():
    pgpo_trainer = trainer(PerceptionTrainerSync, "+perception=pgpo")
    rows = queue.recorded_rows(LENGTHS)
    expected, metrics = computed(pgpo_trainer, rows)
    padded, padded_metrics = computed(pgpo_trainer, rows, padding=3)
    assert same({key: padded[key] for key in expected}, expected)
    assert ours(padded_metrics) == ours(metrics)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist()
    shuffled, _ = computed(pgpo_trainer, [rows[i] for i in order])
    by_row = list(expected.values())
    assert all(torch.equal(value, by_row[i]) for value, i in zip(shuffled.values(), order, strict=True))


def test_text_only_data_warns_once(caplog):
    pgpo_trainer = trainer(PerceptionTrainerSync, "+perception=pgpo")
    rows = queue.recorded_rows(LENGTHS, images=False)
    for _ in range(2):
        computed(pgpo_trainer, rows)
    warnings = [
        record.getMessage() for record in caplog.records if "no row of the batch has an image" in record.getMessage()
    ]
    assert len(warnings) == 1
    assert "data.image_key=images" in warnings[0]


def test_a_weight_that_is_not_finite_stops_the_step():
    rows = queue.recorded_rows(LENGTHS)
    rows[2]["ablated_log_prob"][1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"pgpo: advantage weights of rows \[2\]"):
        computed(trainer(PerceptionTrainerSync, "+perception=pgpo"), rows)
