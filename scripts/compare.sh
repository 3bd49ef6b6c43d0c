#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains and evaluates every arm of the controlled comparison with every seed, and writes docs/comparison.md from the
# files of the runs. What is finished is not run again. See --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python -m study "$@"
