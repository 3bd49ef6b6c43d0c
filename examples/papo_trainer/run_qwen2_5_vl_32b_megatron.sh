#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# PAPO-G | Qwen2.5-VL-32B | Megatron | 4 x 8 GPUs
# Follows no release: the setting of 7B. The authors saw larger models collapse sooner.
# Deviation: padded sequences on Megatron.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen2_5_vl_32b
BACKEND=megatron
source "$here/method.sh"
source "$here/../launch.sh"
