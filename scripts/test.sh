#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets everything up, then lints, type-checks and tests. Arguments go to pytest, e.g. -m "not e2e".
#
#   TEST_WORKERS  test files that run at a time (2); a whole run of main_ppo takes up to 10 GB of memory
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# In the order of their folders, so that whole runs come early and short files fill up the end.
exec .venv/bin/python -m pytest --numprocesses "${TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder "$@"
