# SPDX-License-Identifier: Apache-2.0
"""verl's own Megatron engine on four ranks of a CPU: its signals are those of Hugging Face's model.

Real are the engine's forward and backward over micro-batches, its packing, padding and cutting, Megatron-Core's
schedules, tensor, sequence and context parallelism. `tests/support/megatron_model.py` says what stands in for the rest.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny

pytestmark = pytest.mark.slow

MEGATRON = Path(sys.prefix) / "megatron"
PADDED = ["padded-tp2", "padded-cp2", "padded-sp2-pp2", "padded-sp2-cp2", "padded-pp2-chunks2"]
PACKED = ["packed-sp2", "packed-pp4", "packed-sp2-cp2", "packed-cp2-pp2"]
# A log-probability of -20 in fp32, summed in another order (seen: 4e-6).
ATOL = 2e-5


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """For each rank, {case: {what: largest error}}."""
    assert MEGATRON.is_dir(), f"no {MEGATRON}; scripts/setup.sh puts it there"
    out = tmp_path_factory.mktemp("ranks")
    path = os.pathsep.join([str(tiny.ROOT / "tests"), str(MEGATRON)])
    done = subprocess.run(
        [sys.executable, "-m", "support.megatron_ranks", str(out)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        timeout=580,
        capture_output=True,
        text=True,
    )
    found = [json.loads(file.read_text()) for file in sorted(out.glob("rank*.json"))]
    assert done.returncode == 0, [rank["traceback"] for rank in found if "traceback" in rank] or done.stderr
    return found


def results(ranks, case, count):
    """What the ranks with results found; `count` are expected, one a data-parallel rank."""
    found = [rank[case] for rank in ranks if "log_probs-fixed" in rank[case]]
    assert len(found) == count
    return found


REPLICAS = {"tp2": 2, "cp2": 2, "sp2": 2, "pp2-chunks2": 2}


def replicas(case):
    return REPLICAS.get(case.split("-", 1)[1], 1)


@pytest.mark.parametrize("case", PADDED + PACKED)
def test_similarities_are_those_of_hugging_faces_hidden_states(ranks, case):
    for errors in results(ranks, case, replicas(case)):
        found = {what: e for what, e in errors.items() if what.startswith("visual_similarity")}
        assert len(found) == 2 * 3  # signals; micro-batches fixed, dynamic, and fixed with response-only logits
        assert all(e <= 1e-5 for e in found.values()), found


@pytest.mark.parametrize("case", PADDED + PACKED)
def test_truncated_entropies_are_those_of_the_whole_vocabulary(ranks, case):
    for errors in results(ranks, case, replicas(case)):
        found = [e for what, e in errors.items() if what.startswith("entropy_top_p_0.9")]
        assert len(found) == 3
        assert max(found) <= 1e-5


@pytest.mark.parametrize("case", PADDED + PACKED)
def test_measuring_leaves_log_probs_and_engine_as_they_are(ranks, case):
    for errors in results(ranks, case, replicas(case)):
        assert all(e <= ATOL for what, e in errors.items() if what.startswith("log_probs-"))
    assert [rank[case]["methods left"] for rank in ranks] == [0] * 4


@pytest.mark.parametrize("view", ["drop_vision", "random_patch"])
@pytest.mark.parametrize("case", PADDED)
def test_ablated_views_are_those_of_hugging_faces_model(ranks, case, view):
    for errors in results(ranks, case, replicas(case)):
        assert max(errors[view], errors[f"{view}, short"]) <= ATOL
    assert [rank[case]["blind tower runs"] for rank in ranks] == [0] * 4


@pytest.mark.parametrize("case", PADDED + PACKED)
def test_logits_of_responses_alone_give_the_same_loss_and_gradients(ranks, case):
    for rank in ranks:
        errors = rank[case]
        assert errors["largest gradient"] > 1
        assert errors["short gradient"] <= 1e-5 * errors["largest gradient"]
        assert errors["short loss"] <= 1e-4
        assert errors.get("share of logits", 0) < 0.5
    for errors in results(ranks, case, replicas(case)):
        assert max(errors["short log_probs"], errors["short entropy"]) <= ATOL
        assert "share of logits" in errors


@pytest.mark.parametrize("case", PADDED + PACKED)
def test_tokens_stand_where_verl_puts_them(ranks, case):
    assert [rank[case]["misplaced"] for rank in ranks] == [0] * 4
