# SPDX-License-Identifier: Apache-2.0
"""A critic gets whole pictures. None of verl's critics runs on the CPU: what stands behind our methods is replaced."""

import pytest
import torch
from support import batches, tiny
from support.configuration import configuration
from verl.trainer.ppo.utils import Role
from verl.workers.engine_workers import TrainingWorker

from verl_ext.passes.row_inputs import row_inputs, set_row_inputs
from verl_ext.trainer.trainers import PerceptionTrainerSync
from verl_ext.vocabulary import PIXELS_OF
from verl_ext.worker.critic_worker import PerceptionCriticWorker


@pytest.mark.parametrize("method", ["infer_batch", "train_mini_batch"])
def test_it_is_given_whole_rows(method, monkeypatch):
    data = batches.batch(batches.rows(tiny.model(torch.float32)))
    whole = row_inputs(data)
    keys = [f"{row // 2}_{row - row % 2}_0" for row in range(len(whole))]
    stored = [{**inputs, PIXELS_OF: key} for inputs, key in zip(whole, keys, strict=True)]
    for row in stored[1::2]:
        del row["pixel_values"]
    set_row_inputs(data, stored)
    monkeypatch.setattr(TrainingWorker, method, lambda _self, given: given)
    given = row_inputs(getattr(object.__new__(PerceptionCriticWorker), method)(data))
    for mine, before in zip(given, whole, strict=True):
        assert mine.keys() == before.keys()
        assert all(mine[name].equal(before[name]) for name in mine)
    assert all(one["pixel_values"] is other["pixel_values"] for one, other in zip(given[::2], given[1::2], strict=True))


def test_the_trainer_takes_it():
    trainer = PerceptionTrainerSync(configuration("+perception=pgpo", "perception.base_estimator=gae"))
    trainer._init_resource_pool_mgr()
    worker = trainer.role_worker_mapping[Role.Critic]
    assert PerceptionCriticWorker in worker.__ray_metadata__.modified_class.__mro__
