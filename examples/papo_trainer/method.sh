# SPDX-License-Identifier: Apache-2.0
# PAPO: the setting of the released scripts (arXiv 2507.06448, MikeWangWZHL/PAPO at fb63bf45): ViRL39K, 384 prompts
# with 5 responses a step in updates of 128 prompts, learning rate 1e-6, temperature 1, top-p 0.99, 2 epochs, prompts
# up to 4096 and responses up to 2048 tokens, 200,704 to 1,003,520 pixels, a reward of 0.9 accuracy plus 0.1 format.
# PERCEPTION=papo_d, papo_g_no_kl, papo_g or papo_g_7b chooses the variant.
# Deviations of all scripts: verl's fp32 master weights and optimizer state in place of bf16 ones; the pixel limits
# are the processor's, behind qwen-vl-utils' own resize; validation with one sample a question in place of eight.
PERCEPTION=${PERCEPTION-papo_g_7b}
BASELINE=grpo_kl
TRAIN_BATCH=${TRAIN_BATCH:-384}
MINI_BATCH=${MINI_BATCH:-128}
N=${N:-5}
LR=${LR:-1e-6}
TOP_P=${TOP_P:-0.99}
TOP_K=${TOP_K:--1}
MAX_PROMPT=${MAX_PROMPT:-4096}
MAX_RESPONSE=${MAX_RESPONSE:-2048}
MIN_PIXELS=${MIN_PIXELS-200704}
MAX_PIXELS=${MAX_PIXELS-1003520}
FORMAT_WEIGHT=${FORMAT_WEIGHT:-0.1}
