#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# VPPO | Qwen3-VL-4B | FSDP2 | 8 GPUs
# Follows no paper on this model: the setting of Qwen3-VL-8B.
# Deviations: as on Qwen3-VL-8B.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen3_vl_4b
BACKEND=fsdp
PERCEPTION=${PERCEPTION-vppo_8b}
MAX_RESPONSE=${MAX_RESPONSE:-8192}
STEPS=${STEPS:-130}
source "$here/method.sh"
source "$here/../launch.sh"
