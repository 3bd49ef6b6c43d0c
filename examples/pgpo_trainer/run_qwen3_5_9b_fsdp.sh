#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# PGPO | Qwen3.5-9B | FSDP2 | 8 GPUs
# Follows no paper on this model: the setting of Qwen2.5-VL-3B and 7B, see method.sh.
# Sequences are padded: packing this hybrid of linear and full attention needs flash-linear-attention (pip package
# flash-linear-attention, module fla). REMOVE_PADDING=True packs where it is installed, and is refused where it is not.
# Deviations: the blind pass drops the image tokens, which in linear attention is not the paper's masked attention;
# thinking is off and the answer alone is rewarded, see models/qwen3_5_9b.sh.
set -xeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL_NAME=qwen3_5_9b
BACKEND=fsdp
FORMAT_WEIGHT=${FORMAT_WEIGHT:-0}
source "$here/method.sh"
source "$here/../launch.sh"
