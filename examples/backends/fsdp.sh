# SPDX-License-Identifier: Apache-2.0
# FSDP2 with packed sequences, which need flash-attention. STRATEGY=fsdp is FSDP1; REMOVE_PADDING=False pads sequences;
# SP splits each sequence over as many ranks (Ulysses) and needs them packed; OFFLOAD=1 keeps parameters and optimizer in
# host memory between uses; LORA is the rank of an adapter.

REMOVE_PADDING=${REMOVE_PADDING:-True}
STRATEGY=${STRATEGY:-fsdp2}
SP=${SP:-1}

use_backend() {
    MODEL+=(
        actor_rollout_ref.model.use_remove_padding="$REMOVE_PADDING"
        actor_rollout_ref.model.enable_gradient_checkpointing=True
    )
    ACTOR+=(
        actor_rollout_ref.actor.strategy="$STRATEGY"
        actor_rollout_ref.actor.optim.lr_scheduler_type="$LR_SCHEDULE"
        actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size="$SP"
    )
    REF+=(
        actor_rollout_ref.ref.strategy="$STRATEGY"
        actor_rollout_ref.ref.fsdp_config.ulysses_sequence_parallel_size="$SP"
        actor_rollout_ref.ref.fsdp_config.param_offload=True
    )
    if [ "$OFFLOAD" = 1 ]; then
        ACTOR+=(
            actor_rollout_ref.actor.fsdp_config.param_offload=True
            actor_rollout_ref.actor.fsdp_config.optimizer_offload=True
        )
    fi
    if [ "$LORA" != 0 ]; then
        MODEL+=(
            actor_rollout_ref.model.lora_rank="$LORA"
            actor_rollout_ref.model.lora_alpha="$((2 * LORA))"
            "actor_rollout_ref.model.exclude_modules='.*visual.*'"
        )
    fi
}
