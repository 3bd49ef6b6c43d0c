# SPDX-License-Identifier: Apache-2.0
# Qwen2.5-VL-32B on four nodes of 8 GPUs, with parameters and optimizer in host memory between uses.
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-VL-32B-Instruct}
NNODES=${NNODES:-4}
OFFLOAD=${OFFLOAD:-1}
ROLLOUT_TP=${ROLLOUT_TP:-4}
TP=${TP:-8}
PP=${PP:-1}
