# SPDX-License-Identifier: Apache-2.0
"""Configuration keys of verl's that this package sets or reads, where verl's YAML files alone do not settle it."""

from verl_ext.integration.verl_api import words

FREE_FORM = {
    "ray_kwargs.ray_init.num_gpus": "ray_kwargs.ray_init",
    "ray_kwargs.ray_init.include_dashboard": "ray_kwargs.ray_init",
    "actor_rollout_ref.model.override_config.attn_implementation": "actor_rollout_ref.model.override_config",
}
"""Keys that verl passes on without knowing them: {our key: the mapping that verl must have}."""

MIXED_PRECISION = "verl.workers.config:FSDPEngineConfig.mixed_precision"
FIELD_ONLY = {
    "actor_rollout_ref.rollout.enable_sleep_mode": "verl.workers.config:RolloutConfig.enable_sleep_mode",
    **{
        f"actor_rollout_ref.{role}.fsdp_config.mixed_precision.{name}": MIXED_PRECISION
        for role in ("actor", "ref")
        for name in ("param_dtype", "reduce_dtype", "buffer_dtype")
    },
}
"""Keys that verl's dataclasses have and its YAML does not: {our key: the dataclass field}."""

VALIDATED_KEYS = words(
    """
    trainer.use_v1 trainer.v1.trainer_mode trainer.v1.sync trainer.v1.colocate_async trainer.v1.separate_async
    trainer.default_local_dir algorithm.adv_estimator algorithm.rollout_correction.bypass_mode
    actor_rollout_ref.rollout.calculate_log_probs actor_rollout_ref.rollout.temperature
    actor_rollout_ref.rollout.load_format actor_rollout_ref.actor.strategy actor_rollout_ref.model.use_fused_kernels
    actor_rollout_ref.actor.ulysses_sequence_parallel_size
    actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size
    data.image_key data.max_prompt_length data.filter_overlong_prompts data.custom_cls.path data.custom_cls.name
    """
)
"""Keys of verl's that our code reads, or names in a message."""
