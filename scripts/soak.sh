#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets everything up and trains the quick start's run for 500 steps while its memory and its files are watched.
# `--help` says what can be chosen; a run that was stopped goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python scripts/soak.py "$@"
