# SPDX-License-Identifier: Apache-2.0
"""Real Parquet files, damaged: cut, with bytes changed, with zeros in place of a page."""

import io

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from support.configuration import configuration
from support.tiny import processor

from verl_ext.data.damage import first_damage
from verl_ext.errors import DataError
from verl_ext.rollout.dataset import CheckedRLHFDataset

ROWS, GROUP = 48, 24


def png(row):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(row).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def rows():
    return [
        {
            "data_source": "shapes",
            "prompt": [{"role": "user", "content": f"<image>what color is shape {row}?"}],
            "images": [{"bytes": png(row)}],
            "reward_model": {"style": "rule", "ground_truth": "red"},
            "extra_info": {"index": row},
        }
        for row in range(ROWS)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file with two row groups, and their columns' places."""
    path = tmp_path_factory.mktemp("whole") / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows()), path, row_group_size=GROUP)
    return path


@pytest.fixture(scope="module")
def options():
    return {**OmegaConf.to_container(configuration("+perception=pgpo").data), "filter_overlong_prompts": False}


@pytest.fixture
def load(tmp_path, options, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return lambda path: CheckedRLHFDataset([str(path)], processor().tokenizer, OmegaConf.create(options), processor())


def column(path, group, name):
    """(first byte, bytes) of a column in a row group."""
    found = pq.ParquetFile(path).metadata.row_group(group)
    chunks = [found.column(at) for at in range(found.num_columns)]
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema.startswith(name))
    return chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size


def changed(whole, path, at, content):
    data = bytearray(whole.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)
    return path


def test_a_whole_file_has_no_damage(whole, load):
    assert first_damage([whole]) is None
    assert len(load(whole)) == ROWS


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize("name", ["prompt", "images", "extra_info"])
def test_a_page_of_zeros_names_the_file_and_its_rows(whole, load, tmp_path, group, name):
    start, size = column(whole, group, name)
    path = changed(whole, tmp_path / "train.parquet", start, bytes(size))
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value).startswith(
        f"{path} is damaged between row {GROUP * group} and row {GROUP * (group + 1) - 1} "
    )


@settings(max_examples=15)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_is_named(whole, tmp_path_factory, share):
    path = tmp_path_factory.mktemp("cut") / "train.parquet"
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert first_damage([whole, path]).startswith(f"{path} is no whole Parquet file (")


def test_the_data_set_refuses_a_file_that_was_cut(whole, load, tmp_path):
    path = tmp_path / "train.parquet"
    path.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train\.parquet is no whole Parquet file .* only in part"):
        load(path)


def test_bytes_of_an_image_that_were_changed_name_the_row(whole, load, tmp_path):
    """The page can still be read; the picture's own checksum tells."""
    content = whole.read_bytes()
    picture = png(30)
    at = content.find(picture[60:200])
    assert at > 0
    path = changed(whole, tmp_path / "train.parquet", at + 20, bytes(byte ^ 255 for byte in picture[80:90]))
    data = load(path)
    assert data[29]["extra_info"]["index"] == 29
    with pytest.raises(DataError, match=r"row 30 of .*\(extra_info\.index 30\): image 0 cannot be read"):
        data[30]


def test_pages_with_checksums_hide_nothing(whole, tmp_path):
    checked, path = tmp_path / "checked.parquet", tmp_path / "train.parquet"
    pq.write_table(pq.read_table(whole), checked, row_group_size=GROUP, write_page_checksum=True, compression="none")
    start, size = column(checked, 1, "prompt")
    at = start + size - 3
    changed(checked, path, at, bytes([checked.read_bytes()[at] ^ 1]))
    assert first_damage([path]).startswith(f"{path} is damaged between row {GROUP} and ")


@settings(max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_changed_bit_is_found_or_harmless_and_never_another_error(whole, tmp_path_factory, share, bit):
    path = tmp_path_factory.mktemp("bit") / "train.parquet"
    content = whole.read_bytes()
    at = int(len(content) * share)
    changed(whole, path, at, bytes([content[at] ^ (1 << bit)]))
    found = first_damage([path])
    assert found is None or found.startswith(str(path))
