# SPDX-License-Identifier: Apache-2.0
# GRPO without a perception method: verl's own trainer, in the setting of PAPO's GRPO baseline (arXiv 2507.06448 and
# its scripts). RECIPE=dapo gives the DAPO baseline of PAPO-D and PGPO. The baseline of another method with its own
# batch, lengths and reward is that method's script with PERCEPTION= (empty).
PERCEPTION=${PERCEPTION-}
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
