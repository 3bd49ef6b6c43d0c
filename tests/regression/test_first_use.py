# SPDX-License-Identifier: Apache-2.0
"""Sharing prompts is compared with the plain pass before it is used, and left where it finds something else."""

import logging

import pytest
import torch
from support import batches, tiny, workers

from verl_ext.attention import hooks
from verl_ext.attention.segments import Segment
from verl_ext.passes.fsdp import first_use
from verl_ext.passes.prompt_groups import LEAST_SAVED, saved_share

pytestmark = pytest.mark.usefixtures("process_group")

METHOD = ("+perception=pgpo", "actor_rollout_ref.model.use_remove_padding=True")


@pytest.fixture
def positions():
    """How many positions each pass of the next worker computes; call it with the worker."""
    counted = []

    def count(worker):
        step = worker.actor.engine.module.register_forward_pre_hook(
            lambda _model, _args, given: counted.append(given["input_ids"].numel()), with_kwargs=True
        )
        return counted, step

    return count


def clean(worker, rows):
    data = {"compute_loss": False, "calculate_entropy": False, "use_remove_padding": True, **workers.STEP}
    return worker.compute_log_prob(batches.batch(rows, micro_batch_size_per_gpu=len(rows), **data))["log_probs"]


@pytest.fixture(scope="module")
def rows():
    return batches.rows(tiny.model(torch.float32), per_prompt=3)


def test_once_then_every_pass_shares(rows, positions, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("verl"), "propagate", True)
    worker = workers.build(*METHOD)
    counted, _ = positions(worker)
    with caplog.at_level(logging.INFO, logger="verl"):
        clean(worker, rows)
        clean(worker, rows)
    shared, plain, *passes = counted
    assert shared < plain < passes[0] == passes[1] < sum(len(row.input_ids) for row in rows)
    (message,) = [record.message for record in caplog.records if "shared prompts" in record.message]
    assert "differ by" in message


def test_wrong_attention_is_found_and_not_used(rows, positions, caplog, monkeypatch):
    """As if each response saw no prompt."""
    monkeypatch.setattr(logging.getLogger("verl"), "propagate", True)
    worker, apart = workers.build(*METHOD), workers.build(*METHOD, "perception.share_prompts=False")
    right = hooks.attend_by_segment

    def blind(query, key, value, segments, **how):
        alone = [Segment(s.begin, s.end, s.begin, 0) for s in segments]
        return right(query, key, value, alone, **how)

    monkeypatch.setattr(hooks, "attend_by_segment", blind)
    counted, _ = positions(worker)
    with caplog.at_level(logging.WARNING, logger="verl"):
        found = clean(worker, rows)
    assert counted[2:] == [sum(len(row.input_ids) for row in rows)]
    assert torch.equal(found.values(), clean(apart, rows).values())
    (message,) = [record.message for record in caplog.records if "shared prompts" in record.message]
    assert "goes on without sharing" in message


def test_a_group_of_which_a_few_rows_alone_would_not_pay_is_compared_too(positions, monkeypatch):
    """A short prompt and long responses; those compared are cut, and fit wherever one row does."""
    vlm = tiny.model(torch.float32)
    rows = [tiny.row([], "is it?", " ".join(batches.RESPONSES * 4), vlm, seed=seed) for seed in range(8)]
    prompt, length = len(rows[0].input_ids) - rows[0].response_length, rows[0].response_length
    assert saved_share(prompt, [length] * 8) > LEAST_SAVED > saved_share(prompt, [length] * 2)
    worker = workers.build(*METHOD)
    counted, _ = positions(worker)
    clean(worker, rows)
    shared, plain, whole = counted
    assert shared < plain < whole == prompt + 8 * length
    assert plain <= 3 * 5 * prompt


def test_nothing_is_compared_while_there_are_no_groups(rows, positions):
    worker = workers.build(*METHOD)
    counted, _ = positions(worker)
    clean(worker, rows[::3])
    assert counted == [sum(len(row.input_ids) for row in rows[::3])]
    clean(worker, rows)
    assert len(counted) == 4


def test_a_number_that_is_none_counts_as_different():
    engine = type("Engine", (), {"_autocast_dtype": torch.float32, "forward_step": None})()
    assert not first_use.FirstUse(engine)._agrees(float("inf"))
    assert first_use.FirstUse(engine)._agrees(1e-6)
