# SPDX-License-Identifier: Apache-2.0
"""verl's GRPO advantages of groups with equal and with random rewards, as JSON."""

import json

import numpy as np
import torch
import verl
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

ESTIMATORS = ("grpo", "grpo_vectorized")


def advantages(estimator, rewards, group_size, by_std=True):
    """One advantage a response; each has two tokens and its reward on the second."""
    token_rewards = torch.stack([torch.zeros(len(rewards)), torch.tensor(rewards)], dim=1)
    groups = np.repeat(np.arange(len(rewards) // group_size), group_size).astype(object)
    found, _ = get_adv_estimator_fn(estimator)(
        token_level_rewards=token_rewards,
        response_mask=torch.ones_like(token_rewards),
        index=groups,
        norm_adv_by_std_in_grpo=by_std,
    )
    return found[:, 1].tolist()


def main():
    random = torch.rand(64, generator=torch.Generator().manual_seed(0)).tolist()
    return {
        "verl": verl.__file__,
        "eight of 0.9": {name: advantages(name, [0.9] * 8, 8) for name in ESTIMATORS},
        "largest of equal rewards": {
            name: max(
                abs(advantage)
                for reward in (0.1, 0.2, 0.3, 0.7, 0.9, -0.9, 1e4 / 3)
                for size in (2, 3, 5, 8, 16)
                for by_std in (True, False)
                for advantage in advantages(name, [reward] * size, size, by_std)
            )
            for name in ESTIMATORS
        },
        "different rewards": {
            name: [advantages(name, random, size, by_std) for size in (1, 2, 8) for by_std in (True, False)]
            for name in ESTIMATORS
        },
    }


if __name__ == "__main__":
    print(json.dumps(main()))
