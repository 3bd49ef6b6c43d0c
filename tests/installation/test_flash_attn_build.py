# SPDX-License-Identifier: Apache-2.0
"""flash-attn's real build, in an environment that the steps before it in docs/installing.md have made."""

import os
import subprocess
import sys

import pytest
from support.environments import closure, environment_of
from support.tiny import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from check_gpu_install import PAGE
from install_steps import steps_of

_, TOOLS, FLASH_ATTN, _ = steps_of(PAGE.read_text(), "FSDP and vLLM")

pytestmark = pytest.mark.slow


def build_flash_attn(python, *steps):
    """Run steps as the page has them in an environment, with flash-attn's compiler switched off; what went wrong."""
    # What is built so must not come back from pip's cache to someone who wants the real one.
    without_compiler = {"FLASH_ATTENTION_SKIP_CUDA_BUILD": "TRUE", "PIP_NO_CACHE_DIR": "1"}
    environment = {**os.environ, **without_compiler, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    for step in steps:
        done = subprocess.run(["bash", "-c", step.command], env=environment, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def test_flash_attns_build_runs_after_the_steps_before_it(tmp_path):
    python = environment_of(closure(["torch"]).values(), tmp_path / "environment")
    assert build_flash_attn(python, TOOLS, FLASH_ATTN) == ""
    listed = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    assert "flash_attn==2.8.3" in listed.replace("-", "_")


def test_flash_attns_build_fails_without_torch(tmp_path):
    python = environment_of([], tmp_path / "environment")
    assert "No module named 'torch'" in build_flash_attn(python, TOOLS, FLASH_ATTN)
