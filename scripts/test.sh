#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets everything up, then lints, type-checks and tests. Arguments go to pytest, e.g. -m "not e2e".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
