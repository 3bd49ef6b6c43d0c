# SPDX-License-Identifier: Apache-2.0
# Qwen3.5-9B on one node of 8 GPUs. Patches and pixels: as in qwen3_vl_8b.sh. Three of four layers are linear attention,
# which keeps packed sequences apart only with flash-linear-attention: REMOVE_PADDING=True is for where it is installed.
# Padding is not counted in MAX_TOKENS, and there are 248,320 words: a micro-batch is half of the other models'.
# The model thinks unless its chat template is told not to, for longer than the methods' responses and in a block that
# the prompt opens: THINKING=True wants a larger MAX_RESPONSE, and either way the answer alone is rewarded.
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3.5-9B}
IMAGE_PATCH_SIZE=${IMAGE_PATCH_SIZE:-16}
REMOVE_PADDING=${REMOVE_PADDING:-False}
MAX_TOKENS=${MAX_TOKENS:-$((MAX_PROMPT + MAX_RESPONSE))}
THINKING=${THINKING:-False}
ROLLOUT_TP=${ROLLOUT_TP:-2}
