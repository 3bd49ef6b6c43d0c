# SPDX-License-Identifier: Apache-2.0
"""The real command with a full disk, a cut checkpoint, damaged data, prompts that are too long, garbage in vLLM."""

import json
import shutil

import pytest
from support.attempts import attempt
from support.resumed import OVERRIDES, STEPS, check_whole, last_words, prompts, steps_by_attempt
from support.runs import train

RANK_0 = "world_size_1_rank_0.pt"


@pytest.mark.timeout(1500)
def test_a_full_disk_and_a_cut_checkpoint(easy_vqa, tmp_path):
    """A run that cannot write its second checkpoint goes on from the first; its last is cut: from the one named."""
    full = tmp_path / "checkpoints" / "global_step_2" / "actor" / f"model_{RANK_0}"
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    with attempt(tmp_path, easy_vqa, *OVERRIDES, number=1, steps=STEPS) as run:
        stopped = run.end(600)
        assert run.all_ended(within=60)
    assert stopped.status != 0
    assert "in step 2, while its checkpoint was written: a file could not be written (" in last_words(stopped)
    assert "The checkpoint of step 1 is there: the same command continues with step 2" in last_words(stopped)

    shutil.rmtree(full.parents[1])
    with attempt(tmp_path, easy_vqa, *OVERRIDES, number=2, steps=STEPS - 1) as run:
        finished = run.end(600)
    assert finished.status == 0, finished.output[-4000:]
    check_whole(tmp_path, in_flight=[2], last=STEPS - 1)

    cut = tmp_path / "checkpoints" / f"global_step_{STEPS - 1}" / "actor" / f"optim_{RANK_0}"
    cut.write_bytes(cut.read_bytes()[:-1000])
    refused = train(tmp_path, easy_vqa, *OVERRIDES, steps=STEPS)
    assert refused.status != 0
    assert f"{cut} is cut off" in last_words(refused)
    assert "Started a local Ray instance" not in refused.output

    older = [
        "trainer.resume_mode=resume_path",
        f"trainer.resume_from_path={tmp_path}/checkpoints/global_step_{STEPS - 2}",
    ]
    assert all(override in last_words(refused) for override in older)
    with attempt(tmp_path, easy_vqa, *OVERRIDES, *older, number=3, steps=STEPS) as run:
        finished = run.end(600)
    assert finished.status == 0, finished.output[-4000:]
    assert steps_by_attempt(tmp_path)[-1] == [STEPS - 1, STEPS]
    rows = [prompts(tmp_path, step) for step in range(1, STEPS + 1)]
    assert len({name for names in rows for name in names}) == sum(map(len, rows)) == 4 * STEPS


def test_a_parquet_file_with_changed_bytes(easy_vqa, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(easy_vqa, data)
    content = bytearray((data / "train.parquet").read_bytes())
    content[len(content) // 3 : len(content) // 3 + 4096] = bytes(4096)
    (data / "train.parquet").write_bytes(content)
    refused = train(tmp_path / "run", data, *OVERRIDES, steps=1)
    assert refused.status != 0
    assert f"DataError: {data / 'train.parquet'} is damaged between row " in refused.output


def test_garbage_images_in_the_rollout_stop_the_run(easy_vqa, tmp_path):
    """verl's default load format leaves vLLM's image mean and std random; nothing else would notice."""
    run = train(tmp_path, easy_vqa, *OVERRIDES, "actor_rollout_ref.rollout.load_format=dummy", steps=1)
    assert run.status != 0
    assert "below perception.min_rollout_correlation=0.95" in run.output
    assert "load_format=auto" in run.output


def test_prompts_that_are_all_longer_than_the_limit_are_an_error_that_says_so(easy_vqa, tmp_path):
    run = train(tmp_path, easy_vqa, *OVERRIDES, "data.max_prompt_length=16", steps=1)
    assert run.status != 0
    assert "rollout.prompt_length=16" in run.output


def test_a_full_disk_while_verl_dumps_responses(easy_vqa, tmp_path):
    """verl ends the run; its last line says what could not be written, and no logged step is logged again."""
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "2.jsonl").symlink_to("/dev/full")
    with attempt(tmp_path, easy_vqa, *OVERRIDES, number=1, steps=2) as run:
        stopped = run.end(600)
    assert stopped.status != 0
    assert "stopped after its last step, 2: a file could not be written ([Errno 28] No space" in last_words(stopped)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
