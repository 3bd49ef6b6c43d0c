#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# VPPO | Qwen2.5-VL-32B | FSDP2 | 4 x 8 GPUs
# Follows the paper's 32B model as far as it is known: 32 GPUs (official README), and here the setting of 7B.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen2_5_vl_32b
BACKEND=fsdp
source "$here/method.sh"
source "$here/../launch.sh"
