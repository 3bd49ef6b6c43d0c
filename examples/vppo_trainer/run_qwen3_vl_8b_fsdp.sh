#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# VPPO | Qwen3-VL-8B | FSDP2 | 8 GPUs
# Follows the released 8B setting as it is known: an entropy term of 0.12, responses up to 8192 tokens, 130 steps.
# Deviations: patches of 16 pixels, the model's own, in place of 14; the others in method.sh.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen3_vl_8b
BACKEND=fsdp
PERCEPTION=${PERCEPTION-vppo_8b}
MAX_RESPONSE=${MAX_RESPONSE:-8192}
STEPS=${STEPS:-130}
source "$here/method.sh"
source "$here/../launch.sh"
