#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Creates .venv in the checkout with everything for the CPU, or reuses it when nothing has changed.
#
#   PYTHON          interpreter to use (3.10 to 3.12); found by itself otherwise
#   TORCH_INDEX_URL package index that has CPU builds of torch, see below
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.10 python3 python; do
        if "$candidate" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "setup: no Python 3.10, 3.11 or 3.12 found; install one, or set PYTHON=/path/to/python" >&2
    return 1
}

stamp=.venv/.verl-ext-setup
wanted=$(cat pyproject.toml scripts/setup.sh scripts/torchvision_shim.py | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

python=$(find_python)
echo "setup: .venv with $("$python" --version), about 4 GB, a few minutes"
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)

# PyPI's torch for Linux is the CUDA build, which works here too but brings about 3 GB more. To get the CPU build, set
# TORCH_INDEX_URL to the index that PyTorch's "Get Started" page gives for Compute Platform: CPU.
"${pip[@]}" "torch==2.13.0" ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}
"${pip[@]}" --editable ".[cpu,dev,docs]"

# Megatron-Core stands apart (17 MB): wherever verl finds it, it loads it with its engines. The tests that run verl's
# Megatron engine put it on their path.
"${pip[@]}" --no-deps --upgrade --target .venv/megatron "megatron-core==0.16.1"

# The oldest verl that is supported stands apart too, for the tests. Its wheel also has top-level "tests" and "scripts".
"${pip[@]}" --no-deps --upgrade --target .venv/verl-0.9.0 "verl==0.9.0"
rm -rf .venv/verl-0.9.0/tests .venv/verl-0.9.0/scripts

# torchcodec cannot load without CUDA and breaks the actor's import of the image utilities; nothing here needs it.
.venv/bin/python -m pip uninstall --quiet --yes torchcodec
.venv/bin/python scripts/torchvision_shim.py
echo "$wanted" >"$stamp"
