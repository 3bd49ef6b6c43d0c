# SPDX-License-Identifier: Apache-2.0
"""verl's real configuration, composed by Hydra as `python -m verl.trainer.main_ppo` would."""

from support.tiny import MODEL
from verl_ext.configuration.compose import compose

SMALL = [
    "+platform=cpu",
    f"actor_rollout_ref.model.path={MODEL}",
    "data.max_prompt_length=96",
    "data.max_response_length=32",
    "data.train_batch_size=4",
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
]


def configuration(*overrides):
    """The composed configuration of a small CPU run with `overrides`."""
    return compose([*SMALL, *overrides])
