# SPDX-License-Identifier: Apache-2.0
"""What the documented commands write into a checkout is not offered to git."""

import shutil
import subprocess
from pathlib import Path

import pytest

IGNORED = Path(__file__).parents[3] / ".gitignore"
WRITTEN = [
    "data/easy_vqa/train.parquet",
    "runs/quickstart/metrics.jsonl",
    "outputs/2026-01-01/main_ppo.log",
    "checkpoints/verl-ext/pgpo_qwen2_5_vl_7b_fsdp/metrics-1.jsonl",
    "evaluations/pgpo_qwen2_5_vl_7b_fsdp-200/results.json",
    "report/report.html",
    "comparison/accuracy.png",
    "verl-ext/pgpo_qwen2_5_vl_7b_fsdp.jsonl",
]
KEPT = ["verl_ext/report/page.py", "docs/report.md", "tests/data/train.parquet"]


@pytest.mark.skipif(not shutil.which("git") or not IGNORED.is_file(), reason="needs git and a checkout")
def test_what_commands_write_is_ignored_and_sources_are_not(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(IGNORED, tmp_path)
    command = ["git", "-C", str(tmp_path), "check-ignore", *WRITTEN, *KEPT]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines() == WRITTEN
