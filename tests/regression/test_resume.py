# SPDX-License-Identifier: Apache-2.0
"""Stop after step 4, resume, and everything that decides step 5 is bit-equal to the uninterrupted run's.

Whole runs do not repeat sample for sample, because verl collects responses in the order in which they finish; so the
steps run on recorded batches here. That the data go on where they stopped is tested with main_ppo.
"""

import pytest
import torch
from support import batches, workers

pytestmark = pytest.mark.usefixtures("process_group")

TOTAL_STEPS = 10
OVERRIDES = [
    "+perception=papo_g",
    "perception.papo.schedule=annealing",
    "perception.papo.coef=0.02",
    "recipe=grpo",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine",
    f"actor_rollout_ref.actor.optim.total_training_steps={TOTAL_STEPS}",
]


def train_step(worker, rows, step):
    """One training step on the batch recorded for it; the ablated log-probs and the update's metrics."""
    signals = workers.measured(worker, rows, seed=step, perception_step=step)
    data = batches.batch(
        rows,
        seed=step,
        calculate_entropy=False,
        mini_batch_size=len(rows),
        global_batch_size=len(rows),
        perception_steps_done=step - 1,
        perception_total_steps=TOTAL_STEPS,
    )
    for name, value in signals.items():
        data[name] = value
    metrics = worker.update_actor(data)["metrics"]
    # What remains is time and memory.
    kept = {name: value for name, value in metrics.items() if "perf/" not in name and name != "mfu"}
    return signals["ablated_log_prob"].values().clone(), kept


def weights(worker):
    return {name: tensor.full_tensor().clone() for name, tensor in worker.actor.engine.module.state_dict().items()}


def optimizer(worker):
    state = worker.actor.engine.optimizer.state_dict()["state"]
    return {
        (index, name): value.full_tensor() if hasattr(value, "full_tensor") else value
        for index, entry in state.items()
        for name, value in entry.items()
    }


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


@pytest.fixture(scope="module")
def uninterrupted(rows, tmp_path_factory):
    """A worker after step 4, and the checkpoint it wrote there."""
    folder = str(tmp_path_factory.mktemp("checkpoint") / "actor")
    worker = workers.build(*OVERRIDES)
    for step in range(1, 5):
        train_step(worker, rows, step)
    worker.save_checkpoint(folder, global_step=4)
    return worker, folder


@pytest.fixture(scope="module")
def resumed(uninterrupted):
    worker = workers.build(*OVERRIDES)
    assert not same(weights(worker), weights(uninterrupted[0]))
    worker.load_checkpoint(uninterrupted[1])
    return worker


def test_weights_and_optimizer_moments_are_restored(uninterrupted, resumed):
    assert same(weights(resumed), weights(uninterrupted[0]))
    moments = optimizer(uninterrupted[0])
    assert any(name == "exp_avg_sq" for _, name in moments)
    assert same(optimizer(resumed), moments)


def test_the_learning_rate_schedule_goes_on(uninterrupted, resumed):
    schedules = [worker.actor.engine.lr_scheduler.state_dict() for worker in (uninterrupted[0], resumed)]
    assert schedules[0] == schedules[1]
    assert schedules[0]["last_epoch"] == 4


def test_step_5_is_the_same(uninterrupted, resumed, rows):
    expected_masked, expected = train_step(uninterrupted[0], rows, 5)
    masked, metrics = train_step(resumed, rows, 5)
    assert torch.equal(masked, expected_masked)
    assert repr(metrics) == repr(expected)
    assert metrics["perception/papo/perception_kl_loss_coef"][0] == pytest.approx(-0.02 * (1 - 4 / 5))
    assert same(weights(resumed), weights(uninterrupted[0]))
