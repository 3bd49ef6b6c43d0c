#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# VGPO | Qwen3-VL-8B | FSDP2 | 8 GPUs
# Follows no paper on this model: the setting of Qwen2.5-VL-7B. Deviations in method.sh.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen3_vl_8b
BACKEND=fsdp
source "$here/method.sh"
source "$here/../launch.sh"
