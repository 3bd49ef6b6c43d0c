# SPDX-License-Identifier: Apache-2.0
"""A NaN in what the real worker updates with: it is named, and the optimizer has not stepped."""

import pytest
import torch
from support import batches, workers
from tensordict import NonTensorStack

from verl_ext.supervision.broken_numbers import BROKEN_LOSSES, BrokenNumberError

pytestmark = pytest.mark.usefixtures("process_group")
OVERRIDES = ["+perception=papo_g", "recipe=grpo", "actor_rollout_ref.actor.optim.lr=1e-2"]


def weights(worker):
    return {name: tensor.full_tensor().clone() for name, tensor in worker.actor.engine.module.state_dict().items()}


def update(worker, rows, value):
    """Update with a batch in which a number of the third row is `value`; the metrics, and whether weights changed."""
    signals = workers.measured(worker, rows, perception_step=7)
    settings = {"calculate_entropy": False, "mini_batch_size": len(rows), "global_batch_size": len(rows)}
    data = batches.batch(rows, perception_steps_done=6, perception_total_steps=10, **settings)
    data["uid"] = NonTensorStack(*[f"prompt{index // 2}" for index in range(len(rows))])
    for name, values in signals.items():
        data[name] = values
    advantages = list(data["advantages"].unbind())
    advantages[2] = advantages[2].clone().fill_(value)
    data["advantages"] = batches.jagged(advantages)
    before = weights(worker)
    try:
        return worker.update_actor(data)["metrics"]
    finally:
        after = weights(worker)
        worker.changed = any(not torch.equal(before[name], after[name]) for name in before)


def test_a_sound_batch_changes_the_weights(rows):
    worker = workers.build(*OVERRIDES)
    update(worker, rows, 0.5)
    assert worker.changed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_stop_names_prompt_and_step_before_the_optimizer_steps(rows, value):
    worker = workers.build(*OVERRIDES)
    with pytest.raises(BrokenNumberError, match=r"step 7, prompts prompt1: the loss is NaN or infinite"):
        update(worker, rows, value)
    assert not worker.changed


def test_skip_leaves_the_rows_out_and_goes_on(rows):
    worker = workers.build(*OVERRIDES, "perception.on_broken=skip")
    metrics = update(worker, rows, float("nan"))
    assert max(metrics[BROKEN_LOSSES]) > 0
    assert worker.changed
    assert all(torch.isfinite(tensor).all() for tensor in weights(worker).values())
