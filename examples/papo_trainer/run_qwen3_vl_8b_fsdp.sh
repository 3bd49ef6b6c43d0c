#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# PAPO-G | Qwen3-VL-8B | FSDP2 | 8 GPUs
# Follows no paper on this model: the authors' branch for Qwen3-VL-2B-Thinking, a coefficient of 0.01 and no
# entropy term; otherwise the setting of Qwen2.5-VL, see method.sh.
# Deviation: the answer alone is rewarded, see models/qwen3_vl_8b.sh.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen3_vl_8b
BACKEND=fsdp
PERCEPTION=${PERCEPTION-papo_g}
[ "$PERCEPTION" != papo_g ] || set -- perception.papo.coef=0.01 "$@"
FORMAT_WEIGHT=${FORMAT_WEIGHT:-0}
source "$here/method.sh"
source "$here/../launch.sh"
