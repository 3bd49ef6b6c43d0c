# SPDX-License-Identifier: Apache-2.0
# Qwen3-VL-8B on one node of 8 GPUs. An image token is 32 x 32 pixels, with patches of 16. The methods' limits of pixels
# are kept, as the picture's detail: 200,704 to 1,003,520 pixels are 196 to 980 tokens here, and 256 to 1280 of 28 x 28.
# <think> and </think> are added tokens that the instruct model was not trained on and rarely writes: the scripts reward
# the answer alone. VPPO's authors give it 8192 tokens for a response; with a method's 2048 or 1024, watch
# response_length/clip_ratio.
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-VL-8B-Instruct}
IMAGE_PATCH_SIZE=${IMAGE_PATCH_SIZE:-16}
ROLLOUT_TP=${ROLLOUT_TP:-2}
