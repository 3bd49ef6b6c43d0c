# SPDX-License-Identifier: Apache-2.0
"""One run of main_ppo: rows without images, every odd row that trains, prompts that are too long, a broken picture."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.odd_rows import QUESTION, REFUSED, TRAINS, picture, row
from support.runs import train

BATCH, RESPONSES = 8, 2
PLAIN = [row(content=f"how much is {number} + 2?") for number in range(BATCH)]
ODD = list(TRAINS.values())
WORDS = "word " * 400
LONG = [row(picture(), content=QUESTION + WORDS), row(content=WORDS), *PLAIN[2:]]
BROKEN, REASON = REFUSED["truncated PNG"]
FIRST_ODD, LAST_ODD = 2, 1 + len(ODD) // BATCH
WITH_LONG = LAST_ODD + 1
RECORDS = "perception_tokens"


def table(rows):
    """Of one schema, although some rows have more fields than others; each is known by its index."""
    names = sorted({name for entry in rows for name in entry})
    alike = [{name: entry.get(name) for name in names} for entry in rows]
    for index, entry in enumerate(alike):
        entry["reward_model"] = {"style": "rule", "ground_truth": entry["reward_model"].get("ground_truth")}
        entry["extra_info"] = {"index": index}
    return pa.Table.from_pylist(alike)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    data = folder / "data"
    data.mkdir()
    rows = table([*PLAIN, *ODD, *LONG, PLAIN[0], BROKEN, *PLAIN[2:]])
    pq.write_table(rows, data / "train.parquet")
    pq.write_table(rows.slice(0, BATCH), data / "test.parquet")
    # No space for the records of the third step.
    (folder / "checkpoints" / RECORDS).mkdir(parents=True)
    (folder / "checkpoints" / RECORDS / "step_000003.partial").symlink_to("/dev/full")
    return train(
        folder,
        data,
        "+perception=pgpo",
        "recipe=grpo",
        "perception.record_every=1",
        f"perception.record_rows={BATCH * RESPONSES}",
        "data.shuffle=False",
        f"data.train_batch_size={BATCH}",
        "data.max_prompt_length=256",
        "actor_rollout_ref.rollout.max_model_len=288",
        f"actor_rollout_ref.rollout.n={RESPONSES}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}",
        steps=WITH_LONG + 1,
    )


def test_the_odd_rows_fill_whole_steps():
    assert len(ODD) % BATCH == 0


def test_rows_without_images_warn_and_train_as_grpo(run):
    assert "step 1: no row of the batch has an image" in run.output
    assert run.steps[1]["perception/token_weight/effective_fraction"] == 1.0


def test_every_odd_row_trains(run):
    assert sorted(run.steps) == list(range(1, WITH_LONG + 1)), run.output[-4000:]
    for step in range(FIRST_ODD, LAST_ODD + 1):
        generations = run.generations(step)
        assert len(generations) == BATCH * RESPONSES
    pictured = sum(bool(odd["images"]) for odd in ODD) / len(ODD)
    shares = [run.steps[step]["perception/image_rows"] for step in range(FIRST_ODD, LAST_ODD + 1)]
    assert sum(shares) / len(shares) == pytest.approx(pictured)
    # Rollout and actor see the same pictures, those that are stored turned as well.
    assert all(metrics["perception/rollout_actor_log_prob_corr"] > 0.9999 for metrics in run.steps.values())


def test_a_picture_with_a_huge_question_is_left_out_with_a_warning_and_huge_text_is_cut(run):
    # verl fills the batch up with empty rows that do not count.
    prompts = [entry["input"] for entry in run.generations(WITH_LONG) if entry["input"]]
    assert len(prompts) == (BATCH - 1) * RESPONSES
    assert sum("word word" in prompt for prompt in prompts) == RESPONSES
    assert run.steps[WITH_LONG]["perception/image_rows"] == 0.0
    assert f"step {WITH_LONG}: the rollout failed for 1 prompts" in run.output
    assert "rollout.prompt_length=256" in run.output


def test_a_full_disk_costs_the_records_and_nothing_else(run):
    assert "step 3: its token records are not written" in run.output
    written = {path.name for path in (run.folder / "checkpoints" / RECORDS).iterdir()}
    assert written == {f"step_{step:06d}.parquet" for step in range(1, WITH_LONG + 1) if step != 3}


def test_a_broken_picture_names_its_row(run):
    assert run.status != 0
    broken = len(PLAIN) + len(ODD) + len(LONG) + 1
    assert f"DataError: row {broken} of " in run.output
    assert f"(extra_info.index {broken}): " in run.output
    assert REASON in run.output
