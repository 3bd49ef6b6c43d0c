#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# PGPO | Qwen3-VL-8B | FSDP2 | 8 GPUs
# Follows no paper on this model: the setting of Qwen2.5-VL-3B and 7B, see method.sh.
# Deviation: the answer alone is rewarded, see models/qwen3_vl_8b.sh.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen3_vl_8b
BACKEND=fsdp
FORMAT_WEIGHT=${FORMAT_WEIGHT:-0}
source "$here/method.sh"
source "$here/../launch.sh"
