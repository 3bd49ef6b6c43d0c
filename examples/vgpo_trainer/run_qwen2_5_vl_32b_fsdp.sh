#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# VGPO | Qwen2.5-VL-32B | FSDP2 | 4 x 8 GPUs
# Follows the paper, second-hand: the setting of 7B, whose script alone is released. Deviations in method.sh.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen2_5_vl_32b
BACKEND=fsdp
source "$here/method.sh"
source "$here/../launch.sh"
