#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'END'
Sets everything up, then lints, type-checks and tests.

  test.sh           what a change may break: every quick test, and one whole run of main_ppo
  test.sh --all     everything but those of the markers below, and the core of it once more on the versions that verl pins
                    for GPUs, for which it sets up another 8 GB with Python 3.12; further options go to both calls of pytest
  test.sh OPTIONS   pytest with these options, e.g. -m faults (kill tests, an hour), -m more_runs (more whole runs, 7 minutes),
                    -m more_models (whole runs of more model families, 5 minutes) or tests/unit/methods/test_pgpo.py

  TEST_WORKERS  test files that run at a time (2); a whole run of main_ppo takes up to 10 GB of memory
END
}

run_tests() { # ENVIRONMENT OPTION...
    # In the order of their folders, so that whole runs come early and short files fill up the end.
    "$1/bin/python" -m pytest --numprocesses "${TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder "${@:2}"
}

check() {
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
}

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
case ${1:-} in
    --help | -h) usage && exit ;;
esac
bash scripts/setup.sh
case ${1:-} in
    '')
        check
        run_tests .venv -m "not slow and not faults"
        ;;
    --all)
        bash scripts/setup.sh verl_pins
        check
        run_tests .venv -m "not faults and not more_models and not more_runs" --ignore tests/installation/test_beside_verl.py "${@:2}"
        run_tests .venv-verl_pins -m core "${@:2}"
        ;;
    *) run_tests .venv "$@" ;;
esac
