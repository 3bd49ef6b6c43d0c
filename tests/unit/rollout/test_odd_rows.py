# SPDX-License-Identifier: Apache-2.0
"""Odd data rows: each goes through the data set and the processor as in training, or is refused by its name."""

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from qwen_vl_utils import process_vision_info
from support.configuration import configuration
from support.odd_rows import REFUSED, TRAINS
from support.tiny import ROOT, processor

from verl_ext.errors import DataError
from verl_ext.rollout.dataset import CheckedRLHFDataset


@pytest.fixture(scope="module")
def settings():
    return OmegaConf.to_container(configuration("+perception=pgpo").data)


@pytest.fixture
def data_of(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))

    def build(odd):
        path = tmp_path / "train.parquet"
        pq.write_table(pa.Table.from_pylist([odd]), path)
        config = OmegaConf.create({**settings, "filter_overlong_prompts": False})
        return CheckedRLHFDataset([str(path)], processor().tokenizer, config, processor()), path

    return build


def test_there_are_enough_of_them():
    every, trains, refused = len(TRAINS) + len(REFUSED), len(TRAINS), len(REFUSED)
    assert every >= 40
    said = (ROOT / "docs" / "reliability.md").read_text()
    assert f"Of {every} odd rows {trains} train" in said
    assert f"The other {refused} are refused by name" in said


@pytest.mark.parametrize("name", TRAINS)
def test_what_trains(data_of, name):
    data, _ = data_of(TRAINS[name])
    messages = data[0]["raw_prompt"]
    text = processor().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images, _ = process_vision_info(messages)
    inputs = processor()(text=[text], images=images, return_tensors="pt")
    tokens = (inputs["input_ids"] == processor().tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum().item()
    features = inputs["image_grid_thw"].prod(dim=-1).sum().item() // 4 if images else 0
    assert tokens == features
    assert (tokens > 0) == bool(TRAINS[name]["images"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(data_of, name):
    odd, reason = REFUSED[name]
    data, path = data_of(odd)
    with pytest.raises(DataError) as caught:
        data[0]
    assert str(caught.value).startswith(f"row 0 of ['{path}'] (extra_info.index 77): ")
    assert reason in str(caught.value)
