# SPDX-License-Identifier: Apache-2.0
# PEPO: the setting of the released Qwen2.5-VL-3B scripts (arXiv 2603.22847, xzxxntxdy/PEPO at 2b1e7888): Geometry3K
# for one epoch, 8 prompts with 8 responses a step and one update (2 responses a GPU, 4 accumulation steps, 8 GPUs),
# learning rate 1e-6, temperature 1, top-p 1, 1024 tokens each for prompt and response. Second-hand, as defaults of
# ms-swift: a cosine decay without warm-up, top-k 50, accuracy and format with equal weight. PERCEPTION=pepo_d is
# PEPO-D.
# Deviations of all scripts: verl's fp32 master weights and optimizer state in place of bf16 ones; the answer is
# expected in \boxed{} in place of <answer> tags; the problems' text is hiyouga/geometry3k's; PEPO-D's group filter
# is verl's.
PERCEPTION=${PERCEPTION-pepo_g}
BASELINE=grpo_seq_mean
TRAIN_DATA=${TRAIN_DATA:-geometry3k}
TEST_DATA=${TEST_DATA:-geometry3k}
TRAIN_BATCH=${TRAIN_BATCH:-8}
MINI_BATCH=${MINI_BATCH:-8}
N=${N:-8}
LR=${LR:-1e-6}
LR_SCHEDULE=${LR_SCHEDULE:-cosine}
TOP_P=${TOP_P:-1.0}
TOP_K=${TOP_K:-50}
MAX_PROMPT=${MAX_PROMPT:-1024}
MAX_RESPONSE=${MAX_RESPONSE:-1024}
FORMAT_WEIGHT=${FORMAT_WEIGHT:-0.5}
EPOCHS=${EPOCHS:-1}
VAL_EVERY=${VAL_EVERY:-50}
SAVE_EVERY=${SAVE_EVERY:-50}
