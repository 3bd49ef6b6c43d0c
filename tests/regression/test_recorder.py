# SPDX-License-Identifier: Apache-2.0
"""Per-token records of a training step, from a real TransferQueue to parquet."""

import io

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support import queue, tiny
from support.configuration import configuration

from verl_ext.configuration.section import parse
from verl_ext.passes.signals_by_pass import plan
from verl_ext.records.token_records import SCHEMA
from verl_ext.trainer.trainers import PerceptionTrainerSync
from verl_ext.vocabulary import PIXELS_OF

pytestmark = pytest.mark.slow

LENGTHS = [7, 5, 9, 3, 1, 6, 8, 4]
ACCURACY = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]


@pytest.fixture(scope="module", autouse=True)
def transfer_queue():
    with queue.transfer_queue(configuration("+perception=pgpo")):
        yield


def pixels(index):
    """Features of a 56 x 56 image in one shade."""
    image = Image.new("RGB", (56, 56), (40 * index, 0, 255))
    return dict(tiny.processor().image_processor([image], return_tensors="pt"))


def stored(position):
    """What lies with a row: the first of a prompt carries the pixels of the second."""
    inputs = {**pixels(position // 2), PIXELS_OF: f"prompt{position // 2}_{position - position % 2}_0"}
    return {name: value for name, value in inputs.items() if position % 2 == 0 or name != "pixel_values"}


def rows():
    """Two responses to each of four prompts; the first prompt has no image, the second no answer and no accuracy."""
    made = queue.recorded_rows(LENGTHS)
    encode = tiny.processor().tokenizer.encode
    for position, row in enumerate(made):
        index = position // 2
        score = torch.zeros(LENGTHS[position])
        score[-1] = ACCURACY[position]
        row |= {
            "rm_scores": score,
            "prompts": torch.tensor(encode(f"what color is shape {'x' * index}?")),
            "responses": torch.arange(LENGTHS[position]) + 40,
            "data_source": "shapes",
            "index": index,
            "reward_model": {} if index == 1 else {"style": "rule", "ground_truth": f"answer {index}"},
            "extra_fields": {} if index == 1 else {"reward_extra_info": {"acc": ACCURACY[position]}},
            "multi_modal_inputs": {} if index == 0 else stored(position),
        }
    return made


def trainer(folder, *overrides, step):
    config = configuration("+perception=pgpo", f"trainer.default_local_dir={folder}", *overrides)
    made = object.__new__(PerceptionTrainerSync)
    made.config = config
    made.global_steps, made.total_training_steps, made.local_trigger_step = step, 100, 0
    made._warned_without_images = False
    made.tokenizer, made.processor = tiny.processor().tokenizer, tiny.processor()
    made.perception = parse(config.perception)
    made.plan = plan(made.perception.signals)
    return made


def records(folder, step):
    path = folder / "perception_tokens" / f"step_{step:06d}.parquet"
    return pq.read_table(path).to_pylist() if path.exists() else None


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    made = trainer(folder, "perception.record_every=2", "perception.record_rows=3", step=2)
    meta = queue.put(rows(), padding=3)
    made._compute_advantage(meta, metrics={})
    advantages = queue.advantages(meta)
    queue.clear(meta)
    return folder, made, records(folder, 2), advantages


def test_what_is_recorded(recorded):
    folder, _, found, advantages = recorded
    assert pq.read_schema(folder / "perception_tokens" / "step_000002.parquet").equals(SCHEMA)
    assert len(found) == 3
    for record in found:
        position = LENGTHS.index(len(record["tokens"]))
        key = f"{record['uid']}_{position}_0"
        assert record["advantage"] == pytest.approx(advantages[key].tolist())
        assert record["reward"] == ACCURACY[position]
        assert len(record["weight"]) == len(record["visual_dependency"]) == len(record["tokens"])
        assert dict(record["signals"])["ablated_log_prob"] == pytest.approx(
            rows()[position]["ablated_log_prob"].tolist()
        )


def test_answers_accuracy_and_pictures(tmp_path):
    made = trainer(tmp_path, "perception.record_every=1", "perception.record_rows=8", step=1)
    meta = queue.put(rows())
    made._compute_advantage(meta, metrics={})
    queue.clear(meta)
    found = {record["prompt"]: record for record in records(tmp_path, 1)}
    assert len(found) == 4
    for index in range(4):
        record = next(value for prompt, value in found.items() if prompt.count("x") == index)
        assert record["ground_truth"] == (None if index == 1 else f"answer {index}")
        assert (record["accuracy"] is None) == (index == 1)
        shades = [Image.open(io.BytesIO(png)).getpixel((5, 5)) for png in record["images"]]
        assert shades == ([] if index == 0 else [(40 * index, 0, 255)])


def test_prompts_of_the_first_record_are_met_again(recorded):
    folder, made, first, _ = recorded
    known = {record["prompt_id"] for record in first}
    for resumed in (made, trainer(folder, "perception.record_every=2", "perception.record_rows=3", step=3)):
        resumed.global_steps += resumed is made
        meta = queue.put(rows())
        resumed._compute_advantage(meta, metrics={})
        queue.clear(meta)
        assert {record["prompt_id"] for record in records(folder, 3)} == known
        (folder / "perception_tokens" / "step_000003.parquet").unlink()


def test_steps_between_records_without_known_prompts_write_nothing(tmp_path):
    made = trainer(tmp_path, "perception.record_every=2", step=3)
    meta = queue.put(rows())
    made._compute_advantage(meta, metrics={})
    queue.clear(meta)
    assert records(tmp_path, 3) is None


def test_recording_changes_no_advantage(tmp_path):
    found = []
    for every in (0, 1):
        meta = queue.put(rows())
        trainer(tmp_path, f"perception.record_every={every}", step=1)._compute_advantage(meta, metrics={})
        found.append(queue.advantages(meta))
        queue.clear(meta)
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_a_single_row(tmp_path):
    made = trainer(tmp_path, "perception.record_every=1", "perception.record_rows=1", step=1)
    meta = queue.put(rows())
    made._compute_advantage(meta, metrics={})
    queue.clear(meta)
    (record,) = records(tmp_path, 1)
    assert len(record["tokens"]) == len(record["advantage"])


def test_a_full_disk_is_a_warning(tmp_path, caplog):
    (tmp_path / "perception_tokens").mkdir()
    (tmp_path / "perception_tokens" / "step_000001.partial").symlink_to("/dev/full")
    made = trainer(tmp_path, "perception.record_every=1", step=1)
    meta = queue.put(rows())
    with caplog.at_level("WARNING", logger="verl_ext"):
        made._compute_advantage(meta, metrics={})
    queue.clear(meta)
    assert "step 1: its token records are not written" in caplog.text
    assert "No space left on device" in caplog.text
    assert list((tmp_path / "perception_tokens").iterdir()) == []


@pytest.mark.parametrize("accuracy", ["yes", None, [1.0]])
def test_an_accuracy_that_is_no_number_is_left_out(tmp_path, accuracy):
    made = trainer(tmp_path, "perception.record_every=1", step=1)
    given = rows()
    for row in given:
        row["extra_fields"] = {"reward_extra_info": {"acc": accuracy}}
    meta = queue.put(given)
    made._compute_advantage(meta, metrics={})
    queue.clear(meta)
    assert {record["accuracy"] for record in records(tmp_path, 1)} == {None}
