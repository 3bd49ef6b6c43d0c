# SPDX-License-Identifier: Apache-2.0
# Qwen3-VL-8B on one node of 8 GPUs. Its vision patches have 16 pixels. <think> and </think> are added tokens that the
# instruct model was not trained on and rarely writes: reward the answer alone. Nothing has been run on this model.
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-VL-8B-Instruct}
ROLLOUT_TP=${ROLLOUT_TP:-2}
