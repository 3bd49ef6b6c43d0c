# SPDX-License-Identifier: Apache-2.0
"""However Megatron cuts hidden states over ranks, their similarities are those of the whole."""

import json
import os
import subprocess
import sys

import pytest
from support import sharded_similarity, tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """For each rank, {grid and format: [largest error, number of tokens compared]}."""
    out = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(tiny.ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "support.sharded_similarity", str(out)]
    done = subprocess.run(command, env=environment, timeout=240, capture_output=True, text=True)
    ranks = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(sharded_similarity.WORLD)]
    assert done.returncode == 0, [rank.get("traceback") for rank in ranks]
    return ranks


@pytest.mark.parametrize("form", ["packed", "padded"])
@pytest.mark.parametrize("grid", sharded_similarity.GRIDS)
def test_the_sums_of_parts_are_those_of_the_whole(errors, grid, form):
    for rank in errors:
        error, tokens = rank[f"{grid}-{form}"]
        assert error <= 1e-6
        assert tokens > 50
