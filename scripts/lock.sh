#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes requirements/*.txt anew: the newest versions that fit together, one for all supported Pythons. Run the tests in
# both environments before you commit them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

resolve() { # SET PYTHON INPUT...
    .venv/bin/uv pip compile --quiet --no-annotate --no-header --python-version "$2" --only-binary :all: \
        --no-binary antlr4-python3-runtime --python-platform x86_64-manylinux_2_31 --override "requirements/$1.in" "${@:3}"
}

lock() { # SET PYTHON OPTION...: for the oldest Python of the set
    resolve "$1" "$2" --upgrade --output-file "requirements/$1.txt" "${@:3}" \
        pyproject.toml "requirements/$1.in" requirements/build.in
}

check() { # SET PYTHON: each package has a wheel for this Python too, and asks for nothing that the set lacks
    resolve "$1" "$2" "requirements/$1.txt" | diff "requirements/$1.txt" -
}

bash scripts/setup.sh
lock cpu 3.10 --extra dev --extra docs
lock verl_pins 3.12 --extra dev
check cpu 3.11
check cpu 3.12
git --no-pager diff --stat requirements
