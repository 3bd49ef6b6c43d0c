#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets everything up and trains a tiny Qwen2.5-VL with PGPO on this machine's CPU. Arguments go to main_ppo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python scripts/quickstart.py "$@"
