# SPDX-License-Identifier: Apache-2.0
"""Rows, their blind copies, and the files that they are written to."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data_files import png, read

from verl_ext.data import parquet
from verl_ext.data.parquet import EXTRA_INFO, RowFile, row_schema
from verl_ext.data.row_check import check_row
from verl_ext.data.rows import build_row, unmarked, without_images


def row(index=0, images=1):
    extra_info = {"split": "test", "index": index, "question": "what?", "answer_type": "text", "source_id": ""}
    return build_row(
        data_source="mine",
        prompt="<image>" * images + "what?",
        images=[png(index)] * images,
        ability="vqa",
        answer="this",
        extra_info=extra_info,
    )


def test_a_row_is_what_verl_accepts():
    made = row(images=2)
    check_row(made["prompt"], made["images"], [], name="row")
    assert made["reward_model"] == {"style": "rule", "ground_truth": "this"}
    assert made["extra_info"]["answer"] == "this"


def test_a_blind_copy_asks_the_same_without_the_image():
    seen = row(3)
    before = repr(seen)
    blind = without_images(seen, 100)
    assert repr(seen) == before
    check_row(blind["prompt"], blind["images"], [], name="row")
    assert (blind["data_source"], blind["images"]) == ("mine_blind", [])
    assert blind["prompt"] == [{"role": "user", "content": "what?"}]
    assert blind["extra_info"] == {**seen["extra_info"], "index": 103}
    assert blind["reward_model"] == seen["reward_model"]


@pytest.mark.parametrize(
    ("marked", "text"),
    [
        ("<image>what?", "what?"),
        ("<image><image>\nwhat?", "what?"),
        ("Is <image> in <image>?", "Is in?"),
        ("what?\n<image>", "what?\n"),
    ],
)
def test_placeholders_are_taken_out(marked, text):
    assert unmarked(marked) == text


@given(st.lists(st.sampled_from(["<image>", "<ima", "ge>", " ", "\n", "what"])))
def test_no_placeholder_is_left(pieces):
    assert "<image>" not in unmarked("".join(pieces))


def test_rows_survive_the_file(tmp_path):
    rows = [row(0), row(1, images=0), without_images(row(2), 9)]
    with RowFile(tmp_path / "test.parquet", row_schema(EXTRA_INFO)) as file:
        for item in rows:
            file.write(item)
    assert read(tmp_path / "test.parquet") == rows


def test_memory_is_bounded_by_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_ROWS", 4)
    with RowFile(tmp_path / "test.parquet", row_schema(EXTRA_INFO)) as file:
        for index in range(10):
            file.write(row(index))
    metadata = pq.read_metadata(tmp_path / "test.parquet")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [4, 4, 2]
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1)
    with RowFile(tmp_path / "large.parquet", row_schema(EXTRA_INFO)) as file:
        for index in range(3):
            file.write(row(index))
    assert pq.read_metadata(tmp_path / "large.parquet").num_row_groups == 3


def test_a_file_that_is_not_completed_leaves_nothing(tmp_path):
    (tmp_path / "test.parquet").write_text("older")
    with pytest.raises(KeyError), RowFile(tmp_path / "test.parquet", row_schema(EXTRA_INFO)) as file:
        file.write({})
    assert [path.name for path in tmp_path.iterdir()] == ["test.parquet"]
    assert (tmp_path / "test.parquet").read_text() == "older"


def test_a_last_row_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(pa.ArrowException), RowFile(tmp_path / "test.parquet", row_schema(EXTRA_INFO)) as file:
        file.write({**row(0), "ability": 3})
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_rows_has_the_schema(tmp_path):
    with RowFile(tmp_path / "test.parquet", row_schema(EXTRA_INFO, response=True)):
        pass
    assert pq.read_schema(tmp_path / "test.parquet").names[-1] == "response"
