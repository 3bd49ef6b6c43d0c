# SPDX-License-Identifier: Apache-2.0
"""verl's data set on a real parquet file, with rows that must not reach training."""

import asyncio
import io
import logging
import re

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from PIL import ExifTags, Image
from support import families
from support.configuration import configuration
from support.tiny import picture, processor
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.tokenizer import hf_processor

from verl_ext.errors import ConfigurationError, DataError
from verl_ext.rollout.dataset import CheckedRLHFDataset


def png(seed=0):
    buffer = io.BytesIO()
    picture(64, 64, seed).save(buffer, "PNG")
    return buffer.getvalue()


def row(index, content="<image>what color is the shape?", image=None):
    return {
        "data_source": "test",
        "prompt": [{"role": "user", "content": content}],
        "images": [] if image is None else [{"bytes": image}],
        "reward_model": {"style": "rule", "ground_truth": "red"},
        "extra_info": {"index": index},
    }


@pytest.fixture(scope="module")
def settings():
    return OmegaConf.to_container(configuration("+perception=pgpo").data)


@pytest.fixture
def build(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))

    def build(rows, cls=CheckedRLHFDataset, family=None, **overrides):
        path = tmp_path / "train.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        config = OmegaConf.create({**settings, **overrides})
        own = hf_processor(str(families.path(family))) if family else processor()
        return cls([str(path)], own.tokenizer, config, own)

    return build


def test_good_rows_are_those_of_verl(build):
    rows = [row(10, image=png()), row(11, content="how much is 2 + 2?")]
    ours, theirs = build(rows, filter_overlong_prompts=False), build(rows, RLHFDataset, filter_overlong_prompts=False)
    assert len(ours) == len(theirs) == 2
    for item in range(2):
        mine, verls = ours[item], theirs[item]
        assert mine.keys() == verls.keys()
        assert all(mine[key] == verls[key] for key in mine if key not in ("raw_prompt", "dummy_tensor"))
        assert mine["index"] == 10 + item
    parts = ours[0]["raw_prompt"][0]["content"]
    assert [part["type"] for part in parts] == ["image", "text"]
    assert parts[0]["image"].size == (64, 64)


def prompt_pictures(data, item):
    """As verl's agent loops get them."""
    return asyncio.run(data.process_multi_modal_info(data[item]["raw_prompt"], 14, data.config))[0]


def test_a_picture_that_is_stored_turned_is_upright_for_rollout_and_actor(build):
    """vLLM turns it by its tag and verl's processor does not, so that they would see different pictures."""
    upright = picture(112, 56, seed=1)
    exif = upright.getexif()
    exif[ExifTags.Base.Orientation] = 6
    turned = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    rows = [row(1, image=turned.getvalue()), row(2, image=png()), row(3, content="how much is 2 + 2?")]
    data = build(rows, filter_overlong_prompts=False)
    (found,) = prompt_pictures(data, 0)
    assert ExifTags.Base.Orientation not in found.getexif()
    assert found.size == upright.size
    assert found.tobytes() == upright.tobytes()
    (other,) = prompt_pictures(data, 1)
    assert other.size == (56, 56)
    assert prompt_pictures(data, 2) is None


def test_a_picture_with_a_broken_orientation_is_seen_as_it_is_stored(build):
    stored = io.BytesIO()
    picture(112, 56, seed=1).save(stored, "PNG", exif=b"garbage")
    (found,) = prompt_pictures(build([row(1, image=stored.getvalue())]), 0)
    assert found.tobytes() == picture(112, 56, seed=1).tobytes()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(77, image=png()[:100]), "image 0 cannot be read"),
        (row(77, image=b""), "image 0 cannot be read"),
        (row(77), "marks 1 images with <image> but the row holds 0"),
        (row(77, content="what is it?", image=png()), "marks 0 images with <image> but the row holds 1"),
    ],
    ids=["truncated", "empty", "no image", "no placeholder"],
)
def test_a_bad_row_is_named(build, tmp_path, bad, reason):
    data = build([row(76, image=png()), bad], filter_overlong_prompts=False)
    assert data[0]["index"] == 76
    with pytest.raises(DataError) as caught:
        data[1]
    name = f"row 1 of ['{tmp_path / 'train.parquet'}'] (extra_info.index 77): "
    assert str(caught.value).startswith(name)
    assert reason in str(caught.value)


@pytest.mark.parametrize("filtered", [True, False])
def test_a_video_is_refused_before_training(build, tmp_path, filtered):
    bad = row(77, content="<image><video>what happens?", image=png()) | {"videos": [{"video": "gone.mp4"}]}
    with pytest.raises(DataError) as caught:
        build([row(76, image=png()) | {"videos": []}, bad], filter_overlong_prompts=filtered)
    name = f"row 1 of ['{tmp_path / 'train.parquet'}'] (extra_info.index 77): "
    assert str(caught.value) == f"{name}it has a video; perception methods work on images only so far"


@pytest.mark.parametrize("videos", [[], None])
def test_an_empty_video_column_is_no_video(build, videos):
    data = build([row(76, image=png()) | {"videos": videos}], filter_overlong_prompts=False)
    assert data[0]["index"] == 76


def test_a_video_inside_structured_content_is_refused(build):
    bad = row(77) | {"prompt": [{"role": "user", "content": [{"type": "video", "video": "gone.mp4"}]}]}
    with pytest.raises(DataError, match=r"row 0 of .* \(extra_info\.index 77\): it has a video"):
        build([bad], filter_overlong_prompts=False)[0]


def test_rows_that_the_filter_leaves_out_are_counted(build, tmp_path, caplog):
    long = "what color is the shape? " * 60
    rows = [row(0, image=png()), row(1, content=long), row(2, image=png()[:100]), row(3, image=png(1))]
    with caplog.at_level(logging.WARNING, logger="verl.plugins.verl_ext"):
        data = build(rows, filter_overlong_prompts=True)
    assert [data[item]["index"] for item in range(len(data))] == [0, 3]
    (record,) = [record for record in caplog.records if record.name == "verl.plugins.verl_ext.rollout.dataset"]
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert message.startswith(f"2 of 4 rows of ['{tmp_path / 'train.parquet'}'] are left out")
    assert "data.max_prompt_length=96" in message


def test_nothing_is_said_when_every_row_stays(build, caplog):
    with caplog.at_level(logging.WARNING, logger="verl.plugins.verl_ext"):
        assert len(build([row(0, image=png())], filter_overlong_prompts=True)) == 1
    assert not [record for record in caplog.records if "verl_ext" in record.name]


@pytest.mark.parametrize(
    ("family", "token"), [("qwen3_vl", "<|vision_start|>"), ("glm4v", "<|image|>"), ("glm46v", "<|end_of_image|>")]
)
def test_the_tokens_of_the_models_own_family_are_refused(family, token, build):
    with pytest.raises(DataError, match=re.escape(token)):
        build([row(0, content=f"what is {token}?")], family=family, filter_overlong_prompts=False)[0]


def test_tokens_of_another_family_are_words(build):
    text = "what is <|begin_of_image|>?"
    assert build([row(0, content=text)], family="qwen3_vl", filter_overlong_prompts=False)[0]["raw_prompt"]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v"])
def test_prompts_are_counted_by_the_models_own_patches(family, build):
    """The data set and the rollout resize a picture by the same patches, whatever verl's default says."""
    data = build([row(0, image=png())], family=family, filter_overlong_prompts=False)
    assert data.image_patch_size == data.processor.image_processor.patch_size == families.TINY[family].patch


def test_patches_of_another_size_than_the_models_are_refused(build):
    """As before Ray, for a model that had yet to be fetched then."""
    with pytest.raises(ConfigurationError, match=r"data.image_patch_size=14: .* patches of 16 pixels"):
        build([row(0, image=png())], family="qwen3_vl", filter_overlong_prompts=False, image_patch_size=14)
