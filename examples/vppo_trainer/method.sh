# SPDX-License-Identifier: Apache-2.0
# VPPO: the setting of the released scripts (arXiv 2510.09285, huaixuheqing/VPPO-RL at a23c54b8): ViRL39K, 384 prompts
# with 8 responses a step in updates of 128 prompts, learning rate 1e-6, temperature 1, top-p 0.99, prompts up to 4096
# and responses up to 2048 tokens, 200,704 to 1,003,520 pixels, accuracy alone as reward, validation with 8 samples a
# question at temperature 1. Second-hand: 2 epochs (zsxm1998/awesome-perception-aware-rlvr at 6c8e9c5e).
# Deviations of all scripts: verl's fp32 master weights and optimizer state in place of bf16 ones; the pixel limits
# are the processor's, behind qwen-vl-utils' own resize; verl's group filter in place of one on accuracy in (0.01,
# 0.99); the baseline (PERCEPTION=) has no entropy term.
PERCEPTION=${PERCEPTION-vppo}
BASELINE=dapo
TRAIN_BATCH=${TRAIN_BATCH:-384}
MINI_BATCH=${MINI_BATCH:-128}
N=${N:-8}
LR=${LR:-1e-6}
TOP_P=${TOP_P:-0.99}
TOP_K=${TOP_K:--1}
MAX_PROMPT=${MAX_PROMPT:-4096}
MAX_RESPONSE=${MAX_RESPONSE:-2048}
MIN_PIXELS=${MIN_PIXELS-200704}
MAX_PIXELS=${MAX_PIXELS-1003520}
FORMAT_WEIGHT=${FORMAT_WEIGHT:-0}
VAL_N=${VAL_N:-8}
