# SPDX-License-Identifier: Apache-2.0
# Megatron: TP, PP and CP are its tensor, pipeline and context parallelism; OFFLOAD=1 keeps parameters and optimizer in
# host memory between uses. Sequences are padded: Megatron-Bridge does not pack Qwen2.5-VL (docs/scaling.md).

export CUDA_DEVICE_MAX_CONNECTIONS=1
CP=${CP:-1}

use_backend() {
    if [ "$LORA" != 0 ]; then
        echo "LORA=$LORA: adapters have not been tried on Megatron; take the script of the fsdp backend" >&2
        exit 2
    fi
    MODEL+=(actor_rollout_ref.model.use_remove_padding=False)
    ACTOR+=(
        actor_rollout_ref.actor.optim.lr_decay_style="$LR_SCHEDULE"
        actor_rollout_ref.actor.megatron.tensor_model_parallel_size="$TP"
        actor_rollout_ref.actor.megatron.pipeline_model_parallel_size="$PP"
        actor_rollout_ref.actor.megatron.context_parallel_size="$CP"
        actor_rollout_ref.actor.megatron.override_transformer_config.recompute_granularity=full
        actor_rollout_ref.actor.megatron.override_transformer_config.recompute_method=uniform
        actor_rollout_ref.actor.megatron.override_transformer_config.recompute_num_layers=1
    )
    REF+=(
        actor_rollout_ref.ref.megatron.tensor_model_parallel_size="$TP"
        actor_rollout_ref.ref.megatron.pipeline_model_parallel_size="$PP"
        actor_rollout_ref.ref.megatron.context_parallel_size="$CP"
        actor_rollout_ref.ref.megatron.param_offload=True
    )
    if [ "$OFFLOAD" = 1 ]; then
        ACTOR+=(
            actor_rollout_ref.actor.megatron.param_offload=True
            actor_rollout_ref.actor.megatron.optimizer_offload=True
        )
    fi
    EXTRA+=(model_engine=megatron)
}
