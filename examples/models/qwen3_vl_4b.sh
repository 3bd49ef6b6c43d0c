# SPDX-License-Identifier: Apache-2.0
# Qwen3-VL-4B on one node of 8 GPUs. Patches, pixels, rewards and lengths: as in qwen3_vl_8b.sh.
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-VL-4B-Instruct}
IMAGE_PATCH_SIZE=${IMAGE_PATCH_SIZE:-16}
ROLLOUT_TP=${ROLLOUT_TP:-1}
