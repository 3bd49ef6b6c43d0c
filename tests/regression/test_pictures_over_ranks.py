# SPDX-License-Identifier: Apache-2.0
"""Groups spread over two of verl's actor workers: one has the rows that carry the pictures of the other's."""

from dataclasses import replace

import pytest
import ray
import transfer_queue as tq
from omegaconf import OmegaConf, open_dict
from support import queue
from support.configuration import configuration
from support.stored_groups import Group, Worker, handle, store
from support.tiny import picture
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup

from verl_ext.passes.ablated_view import INPUT_FIELDS
from verl_ext.worker.actor_worker import PerceptionActorRolloutRefWorker

pytestmark = pytest.mark.slow

OVERRIDES = [
    "+perception=pgpo",
    "perception.ablation.kind=random_patch",
    "perception.share_prompts=False",
    "trainer.n_gpus_per_node=2",
]
PASS = {
    "micro_batch_size_per_gpu": 1,
    "compute_loss": False,
    "calculate_entropy": True,
    "temperature": 1.0,
    "perception_step": 3,
    "perception_keep_images": True,
}
FIELDS = ("log_probs", "ablated_log_prob")


@pytest.fixture(scope="module", name="actors")
def two_ranks():
    """A group of two of verl's workers, beside a TransferQueue."""
    config = configuration(*OVERRIDES)
    with open_dict(config):
        config.actor_rollout_ref.perception = config.perception
    ray.init(num_cpus=6, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        tq.init(OmegaConf.merge(config.transfer_queue, {"enable": True}))
        made = RayClassWithInitArgs(
            cls=ray.remote(PerceptionActorRolloutRefWorker), config=config.actor_rollout_ref, role="actor"
        )
        pool = RayResourcePool([2], use_gpu=True, max_colocate_count=1)
        group = RayWorkerGroup(resource_pool=pool, ray_cls_with_init=made, device_name="cpu")
        group.init_model()
        yield group
        tq.close()
    finally:
        ray.shutdown()


def measured(actors, uid, *overrides):
    """The log-probs of both passes over two groups, of which each rank has two rows; the first has those that carry."""
    store(
        Worker(*overrides), Group(f"{uid}a", [[picture(84, 84, 1)]] * 4), Group(f"{uid}b", [[picture(84, 84, 2)]] * 4)
    )
    rows = handle([f"{uid}{group}_{session}_0" for session in range(4) for group in "ab"])
    actors.compute_log_prob(replace(rows, extra_info=PASS))
    actors.compute_ablated_log_prob(replace(rows, fields=list(INPUT_FIELDS), extra_info=PASS))
    found = tq.kv_batch_get(keys=rows.keys, partition_id=queue.PARTITION, select_fields=list(FIELDS))
    return [found[name].values() for name in FIELDS]


def test_both_ranks_have_whole_rows(actors):
    ours, verls = measured(actors, "once"), measured(actors, "copies", "perception.share_prompts=False")
    assert all(mine.equal(theirs) for mine, theirs in zip(ours, verls, strict=True))
    assert not ours[0].equal(ours[1])
