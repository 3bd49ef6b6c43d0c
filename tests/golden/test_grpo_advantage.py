# SPDX-License-Identifier: Apache-2.0
"""verl's estimator, on which every method builds, against the official code's; and what zeroing flat groups changes."""

import numpy as np
import pytest
import torch
from support.golden import WEIGHT, load
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from verl_ext.methods.credit import without_equal_reward_groups


def estimated(rewards, mask, uids):
    return compute_grpo_outcome_advantage(rewards, mask, np.asarray(uids, dtype=object))[0]


def test_verls_estimator_is_the_papers():
    golden, _ = load("papo_grpo_advantage")
    given = golden["in_token_level_rewards"], golden["in_response_mask"]
    advantages = estimated(*given, golden["in_uid"].tolist())
    torch.testing.assert_close(advantages, golden["out_advantages"], **WEIGHT)
    rewards = golden["in_token_level_rewards"].sum(dim=-1)
    assert torch.equal(without_equal_reward_groups(advantages, rewards, golden["in_uid"]), advantages)


@pytest.mark.parametrize(("reward", "noise"), [(0.9, 0.056), (0.1, 0.007)])
def test_equal_rewards_leave_rounding_noise_that_can_be_zeroed(reward, noise):
    rewards, mask = torch.full((8, 1), reward), torch.ones(8, 1)
    advantages = estimated(rewards, mask, [0] * 8)
    assert advantages.abs().max() == pytest.approx(noise, abs=5e-4)
    zeroed = without_equal_reward_groups(advantages, rewards[:, 0], torch.zeros(8, dtype=torch.long))
    assert (zeroed == 0).all()


def test_a_group_of_one_keeps_its_reward_unless_zeroed():
    rewards, mask = torch.tensor([[0.7], [1.0], [0.0]]), torch.ones(3, 1)
    advantages = estimated(rewards, mask, [0, 1, 1])
    assert advantages[0].item() == pytest.approx(0.7, abs=1e-4)
    zeroed = without_equal_reward_groups(advantages, rewards[:, 0], torch.tensor([0, 1, 1]))
    assert zeroed[0] == 0
    assert torch.equal(zeroed[1:], advantages[1:])
