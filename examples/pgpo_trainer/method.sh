# SPDX-License-Identifier: Apache-2.0
# PGPO (arXiv 2604.01840, no official code): the setting is second-hand, from the table of an unofficial
# re-implementation (zsxm1998/awesome-perception-aware-rlvr at 20cdba61): PAPO's data, batch, lengths, pixels and
# reward, DAPO's recipe, the same for 3B and 7B.
# Deviations of all scripts: verl's fp32 master weights and optimizer state in place of bf16 ones; the pixel limits
# are the processor's, behind qwen-vl-utils' own resize; verl's group filter in place of one on accuracy in (0.01,
# 0.99); validation with one sample a question in place of eight.
PERCEPTION=${PERCEPTION-pgpo}
BASELINE=dapo
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
