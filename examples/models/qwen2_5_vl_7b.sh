# SPDX-License-Identifier: Apache-2.0
# Qwen2.5-VL-7B on one node of 8 GPUs.
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-VL-7B-Instruct}
ROLLOUT_TP=${ROLLOUT_TP:-2}
TP=${TP:-2}
PP=${PP:-2}
