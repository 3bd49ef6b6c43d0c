# SPDX-License-Identifier: Apache-2.0
"""verl's own balancing with groups side by side, on the real trainer class, without Ray or TransferQueue."""

import random
from types import SimpleNamespace

import pytest
from support.configuration import configuration
from transfer_queue import KVBatchMeta

from verl_ext.configuration.section import parse
from verl_ext.trainer.groups_together import GroupsTogether
from verl_ext.trainer.trainers import PerceptionTrainerSync

PROMPTS, RESPONSES = 8, 4


def trainer(ranks, *overrides):
    made = object.__new__(PerceptionTrainerSync)
    made.config = configuration(
        "+perception=pgpo",
        f"actor_rollout_ref.rollout.n={RESPONSES}",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        *overrides,
    )
    made.perception = parse(made.config.perception)
    made.use_critic, made.global_steps = False, 1
    made.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": list(range(ranks))})
    made.tokenizer = SimpleNamespace(eos_token_id=0)
    return made


def batch(seed=0, mixed=True):
    draw = random.Random(seed)
    rows = [
        (f"uid{prompt}_{session}_0", {"prompt_len": 100 + prompt, "seq_len": 100 + prompt + draw.randint(1, 60)})
        for prompt in range(PROMPTS)
        for session in range(RESPONSES)
    ]
    if mixed:
        draw.shuffle(rows)
    return KVBatchMeta(partition_id="train", keys=[key for key, _ in rows], tags=[tag for _, tag in rows])


def uids(keys):
    return [key.split("_")[0] for key in keys]


def changes(names):
    return sum(one != other for one, other in zip([None, *names], names, strict=False))


def per_step(keys, ranks, steps):
    """The rows of each optimizer step, over all ranks."""
    per_rank = len(keys) // ranks
    size = per_rank // steps
    return [
        {key for rank in range(ranks) for key in keys[rank * per_rank + step * size :][:size]} for step in range(steps)
    ]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_groups_lie_on_one_rank_side_by_side(ranks):
    metrics = {}
    keys = trainer(ranks, "actor_rollout_ref.actor.ppo_mini_batch_size=8")._balance_batch(batch(), metrics).keys
    assert sorted(keys) == sorted(batch().keys)
    per_rank = len(keys) // ranks
    assert sum(changes(uids(keys[begin : begin + per_rank])) for begin in range(0, len(keys), per_rank)) == PROMPTS
    assert metrics["global_seqlen/minmax_diff"] >= 0


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_optimizer_steps_take_the_rows_that_verl_chose(ranks):
    ours = trainer(ranks)._balance_batch(batch(mixed=False), {}).keys
    verls = trainer(ranks, "perception.share_prompts=False")._balance_batch(batch(mixed=False), {}).keys
    assert per_step(ours, ranks, steps=2) == per_step(verls, ranks, steps=2)


@pytest.mark.parametrize(
    "override",
    [
        "perception.share_prompts=False",
        "actor_rollout_ref.actor.shuffle=True",
        "actor_rollout_ref.model.use_fused_kernels=True",
        "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2",
        "perception.response_only_logits=False",
    ],
)
def test_verls_order_is_kept(override):
    """Without sharing, and where the places of rows decide which step takes them."""
    made = trainer(2, override)
    keys = made._balance_batch(batch(), {}).keys
    assert keys == super(GroupsTogether, made)._balance_batch(batch(), {}).keys
