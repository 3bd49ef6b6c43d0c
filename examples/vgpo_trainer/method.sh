# SPDX-License-Identifier: Apache-2.0
# VGPO: the setting of the released 7B script (arXiv 2604.09349, wzb-bupt/VGPO at d773c71d): ViRL39K, 512 prompts with
# 8 responses a step in updates of 128 prompts, learning rate 1e-6, temperature 1, top-p 0.99, 2 epochs, prompts up
# to 4096 and responses up to 2048 tokens, 262,144 to 4,194,304 pixels, accuracy alone as reward; validation with one
# sample at temperature 0.6, top-p 0.95.
# Deviations of all scripts: verl's fp32 master weights and optimizer state in place of bf16 ones; the pixel limits
# are the processor's, behind qwen-vl-utils' own resize; verl's group filter in place of one on accuracy in (0.01,
# 0.99).
PERCEPTION=${PERCEPTION-vgpo}
BASELINE=dapo
TRAIN_BATCH=${TRAIN_BATCH:-512}
MINI_BATCH=${MINI_BATCH:-128}
N=${N:-8}
LR=${LR:-1e-6}
TOP_P=${TOP_P:-0.99}
TOP_K=${TOP_K:--1}
MAX_PROMPT=${MAX_PROMPT:-4096}
MAX_RESPONSE=${MAX_RESPONSE:-2048}
MIN_PIXELS=${MIN_PIXELS-262144}
MAX_PIXELS=${MAX_PIXELS-4194304}
FORMAT_WEIGHT=${FORMAT_WEIGHT:-0}
VAL_TEMPERATURE=${VAL_TEMPERATURE:-0.6}
VAL_TOP_P=${VAL_TOP_P:-0.95}
