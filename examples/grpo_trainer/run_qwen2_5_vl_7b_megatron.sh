#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# GRPO | Qwen2.5-VL-7B | Megatron | 8 GPUs
# Follows PAPO's GRPO baseline of 7B, see method.sh.
# Deviation: padded sequences on Megatron.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen2_5_vl_7b
BACKEND=megatron
source "$here/method.sh"
source "$here/../launch.sh"
