#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# GRPO | Qwen3-VL-4B | FSDP2 | 8 GPUs
# Follows no paper on this model: PAPO's GRPO baseline of Qwen2.5-VL, see method.sh.
# Deviation: the answer alone is rewarded, see models/qwen3_vl_8b.sh.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen3_vl_4b
BACKEND=fsdp
FORMAT_WEIGHT=${FORMAT_WEIGHT:-0}
source "$here/method.sh"
source "$here/../launch.sh"
