# SPDX-License-Identifier: Apache-2.0
# Qwen2.5-VL-3B on one node of 8 GPUs. Its 2 key-value heads bound the tensor parallelism.
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-VL-3B-Instruct}
ROLLOUT_TP=${ROLLOUT_TP:-1}
TP=${TP:-2}
PP=${PP:-1}
