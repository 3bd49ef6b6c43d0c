# SPDX-License-Identifier: Apache-2.0
"""Whole conversions: splits, blind copies, duplicates, unusable rows, limits, the data card."""

import errno
import hashlib
from importlib import import_module
from io import BytesIO

import pytest
from PIL import Image
from support.data_files import png, problems, read, write_lines, write_problems

from verl_ext.data.convert import Options, convert
from verl_ext.data.parquet import RowFile
from verl_ext.data.row_check import check_row
from verl_ext.data.source import Source
from verl_ext.errors import DataError


@pytest.fixture
def source(tmp_path):
    """8 train rows, of which two share an image with the 3 test rows."""
    write_problems(tmp_path / "in/train.parquet", problems(range(8)))
    write_problems(tmp_path / "in/test.parquet", problems([20, 3, 5]))
    return made({split: (tmp_path / f"in/{split}.parquet",) for split in ("train", "test")})


def made(splits):
    return Source("mine", "Mine", "nowhere", "none", "math", splits)


def indices(path):
    return [row["extra_info"]["index"] for row in read(path)]


def damaged(rows, *positions):
    """The rows with cut images at some positions."""
    for position in positions:
        rows[position]["images"][0]["bytes"] = png()[:50]
    return rows


def test_every_row_is_one_that_verl_accepts(source, tmp_path):
    convert(source, tmp_path / "out", Options(blind=True))
    names = sorted(path.stem for path in (tmp_path / "out").glob("*.parquet"))
    assert names == ["test", "test_blind", "train"]
    for name in names:
        for row in read(tmp_path / f"out/{name}.parquet"):
            check_row(row["prompt"], row["images"], [], name=name)
            assert set(row) == {"data_source", "prompt", "images", "ability", "reward_model", "extra_info"}
    (row, *_) = read(tmp_path / "out/test.parquet")
    assert row["prompt"][0]["content"].startswith("<image>How far is 20?\n\nYou first think")
    assert row["images"] == [{"bytes": png(20)}]
    assert row["extra_info"] == {
        "split": "test",
        "index": 8,
        "question": "How far is 20?",
        "answer": "3",
        "answer_type": "number",
        "source_id": "",
    }


def test_blind_rows_ask_the_same_in_the_same_order(source, tmp_path):
    convert(source, tmp_path / "out", Options(blind=True, template="plain"))
    seen, blind = (read(tmp_path / f"out/{name}.parquet") for name in ("test", "test_blind"))
    assert [row["prompt"][0]["content"].removeprefix("<image>") for row in seen] == [
        row["prompt"][0]["content"] for row in blind
    ]
    assert {row["data_source"] for row in blind} == {"mine_blind"}
    assert not any(row["images"] for row in blind)
    numbers = [index for name in ("train", "test", "test_blind") for index in indices(tmp_path / f"out/{name}.parquet")]
    assert len(set(numbers)) == len(numbers)


def test_rows_without_an_image_have_no_blind_copy(tmp_path):
    rows = problems([1, 2])
    rows[0] |= {"images": [], "problem": "How much is 1 + 2?"}
    write_problems(tmp_path / "test.parquet", rows)
    counts = convert(made({"test": (tmp_path / "test.parquet",)}), tmp_path / "out", Options(blind=True))
    assert (counts["test"].rows, counts["test_blind"].rows) == (2, 1)
    assert counts["test"].images_per_row == {0: 1, 1: 1}


def test_blind_without_held_out_rows_is_refused(source, tmp_path):
    train = made({"train": source.splits["train"]})
    with pytest.raises(DataError, match="--val-size"):
        convert(train, tmp_path / "out", Options(blind=True))


def test_train_shares_no_image_with_held_out_rows(source, tmp_path):
    counts = convert(source, tmp_path / "out", Options())
    assert indices(tmp_path / "out/train.parquet") == [0, 1, 2, 4, 6, 7]
    assert (counts["train"].rows, counts["train"].duplicates) == (6, 2)
    assert "`train.parquet`: 2 rows that share an image" in (tmp_path / "out/README.md").read_text()


def test_duplicates_can_be_kept(source, tmp_path):
    assert convert(source, tmp_path / "out", Options(keep_duplicates=True))["train"].rows == 8


def test_another_encoding_of_the_pixels_is_a_duplicate(tmp_path):
    buffer = BytesIO()
    Image.open(BytesIO(png(1))).save(buffer, "BMP")
    rows = problems([1])
    rows[0]["images"][0]["bytes"] = buffer.getvalue()
    write_problems(tmp_path / "train.parquet", rows)
    write_problems(tmp_path / "test.parquet", problems([1]))
    files = {split: (tmp_path / f"{split}.parquet",) for split in ("train", "test")}
    assert convert(made(files), tmp_path / "out", Options())["train"].duplicates == 1


def test_prepared_files_can_be_held_out_too(source, tmp_path):
    convert(made({"test": source.splits["test"]}), tmp_path / "first", Options())
    train = made({"train": source.splits["train"]})
    counts = convert(train, tmp_path / "second", Options(held_out=(tmp_path / "first/test.parquet",)))
    assert counts["train"].duplicates == 2
    write_lines(tmp_path / "other.jsonl", [{"image": "a.png"}])
    with pytest.raises(DataError, match="line 1: holds no images"):
        convert(train, tmp_path / "third", Options(held_out=(tmp_path / "other.jsonl",)))


def test_an_unusable_row_stops_the_conversion_and_leaves_no_file(tmp_path):
    path = tmp_path / "train.parquet"
    write_problems(path, damaged(problems(range(4)), 2))
    with pytest.raises(DataError, match="cannot be read as an image") as caught:
        convert(made({"train": (path,)}), tmp_path / "out", Options())
    assert str(caught.value).startswith(f"{path}: row 2: ")
    assert "--skip-bad" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_unusable_rows_can_be_left_out_and_are_named(tmp_path, capsys):
    path = tmp_path / "train.parquet"
    rows = damaged(problems(range(30)), *range(3, 27))
    rows[28]["answer"] = ""
    write_problems(path, rows)
    counts = convert(made({"train": (path,)}), tmp_path / "out", Options(skip_bad=True))
    assert indices(tmp_path / "out/train.parquet") == [0, 1, 2, 27, 29]
    assert len(counts["train"].unusable) == 25
    assert capsys.readouterr().err.count("left out: ") == 25
    card = (tmp_path / "out/README.md").read_text()
    assert "25 unusable rows" in card
    assert f"{path}: row 3: cannot be read as an image" in card
    assert "and 5 more" in card


def test_limit_reads_the_first_rows(source, tmp_path):
    counts = convert(source, tmp_path / "out", Options(limit=2, keep_duplicates=True))
    assert {name: count.rows for name, count in counts.items()} == {"test": 2, "train": 2}
    assert indices(tmp_path / "out/test.parquet") == [8, 9]


def test_a_limit_leaves_later_rows_alone(tmp_path):
    write_problems(tmp_path / "train.parquet", damaged(problems(range(6)), 4))
    counts = convert(made({"train": (tmp_path / "train.parquet",)}), tmp_path / "out", Options(limit=4))
    assert (counts["train"].rows, counts["train"].unusable) == (4, [])


def test_held_out_rows_are_picked_by_the_seed(source, tmp_path):
    train = made({"train": source.splits["train"]})
    picks = set()
    for seed in (0, 0, 1, 2):
        counts = convert(train, tmp_path / "out", Options(val_size=3, seed=seed, blind=True))
        assert {name: count.rows for name, count in counts.items()} == {"val": 3, "val_blind": 3, "train": 5}
        val = indices(tmp_path / "out/val.parquet")
        assert sorted(val + indices(tmp_path / "out/train.parquet")) == list(range(8))
        assert {row["extra_info"]["split"] for row in read(tmp_path / "out/val.parquet")} == {"val"}
        picks.add((seed, tuple(val)))
    assert len(picks) == 3
    assert len({val for _, val in picks}) > 1


@pytest.mark.parametrize("size", [8, 9])
def test_more_held_out_rows_than_rows(source, tmp_path, size):
    with pytest.raises(DataError, match=f"val_size={size}: must be less than 8"):
        convert(made({"train": source.splits["train"]}), tmp_path / "out", Options(val_size=size))


def test_held_out_rows_where_there_is_a_split_for_them(source, tmp_path):
    with pytest.raises(DataError, match="val_size=1: the source has train, test of its own"):
        convert(source, tmp_path / "out", Options(val_size=1))


def test_large_images_are_scaled_down_and_counted(source, tmp_path):
    counts = convert(source, tmp_path / "out", Options(max_pixels=24))
    assert all(width * height <= 24 for count in counts.values() for width, height in count.sizes)
    assert counts["train"].downscaled == counts["train"].rows == 6
    assert "6 / 6 / 6 | 4 / 4 / 4 | 1: 6 | 6 |" in (tmp_path / "out/README.md").read_text()


def test_the_same_arguments_give_the_same_bytes(source, tmp_path):
    def hashes(name):
        convert(source, tmp_path / name, Options(blind=True, max_pixels=50, seed=3))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).iterdir()}

    assert hashes("a") == hashes("b")
    assert len(hashes("a")) == 4


def test_rows_that_the_model_could_not_read_are_refused(tmp_path):
    write_problems(tmp_path / "train.parquet", [{**problems([1])[0], "problem": "What is <|image_pad|>?"}])
    with pytest.raises(DataError, match="row 0: the text has the token"):
        convert(made({"train": (tmp_path / "train.parquet",)}), tmp_path / "out", Options())


def test_half_a_character_is_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"question": "what \\ud800?", "answer": "1", "images": []}\n')
    with pytest.raises(DataError, match="line 1: has half a character"):
        convert(made({"train": (tmp_path / "train.jsonl",)}), tmp_path / "out", Options())


def test_a_folder_that_cannot_be_written_is_named(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/out: cannot be written"):
        convert(source, tmp_path / "file/out", Options())


def test_a_template_may_not_lose_an_image(source, tmp_path):
    (tmp_path / "t.jinja").write_text("{{ content | replace('<image>', '') }}")
    with pytest.raises(DataError, match="row 0: the prompt marks 0 images with <image> but the row holds 1"):
        convert(source, tmp_path / "out", Options(template=str(tmp_path / "t.jinja")))


def test_the_card_says_what_is_in_the_files(source, tmp_path):
    convert(source, tmp_path / "out", Options(template="easyr1", limit=7))
    card = (tmp_path / "out/README.md").read_text()
    for line in (
        "# Mine, in verl's schema",
        "Made by `verl-ext data` from nowhere. Licence: none.",
        "| `test.parquet` | 3 | 3 |",
        "| `train.parquet` | 5 | 5 |",
        "| `test.parquet` | 12 / 12 / 12 | 8 / 8 / 8 | 1: 3 | 0 |",
        "| `test.parquet` | 0 | 3 | 0 | 0 | 0 |",
        "| limit | 7 |",
        "| template | easyr1 |",
        "You FIRST think",
    ):
        assert line in card


def test_progress_is_shown_for_long_passes_alone(source, tmp_path, capsys, monkeypatch):
    convert(source, tmp_path / "out", Options())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("verl_ext.data.progress.QUIET_SECONDS", 0)
    convert(source, tmp_path / "out", Options())
    assert "train: " in capsys.readouterr().err


def test_progress_is_shown_while_rows_are_counted_and_held_out_images_read(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("verl_ext.data.progress.QUIET_SECONDS", 0)
    convert(made({"test": source.splits["test"]}), tmp_path / "first", Options())
    write_lines(tmp_path / "lines.jsonl", [{"question": "?", "answer": "1", "images": []}])
    held_out = (tmp_path / "first/test.parquet",)
    convert(made({"train": (tmp_path / "lines.jsonl",)}), tmp_path / "second", Options(held_out=held_out))
    shown = capsys.readouterr().err
    assert "held out, test.parquet: " in shown
    assert "counting lines.jsonl: " in shown


@pytest.mark.parametrize("name", ["test", "train"])
def test_a_full_disk_leaves_no_file(source, tmp_path, monkeypatch, name):
    def full(file):
        if file._path.stem == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(file)

    flush = RowFile._flush
    monkeypatch.setattr(RowFile, "_flush", full)
    with pytest.raises(DataError, match=r"out: cannot be written: .*No space left"):
        convert(source, tmp_path / "out", Options())
    assert list((tmp_path / "out").iterdir()) == []


def test_verl_reads_files_of_two_data_sets_together(source, tmp_path):
    import_module("verl")
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    convert(source, tmp_path / "a", Options(blind=True))
    other = Source("other", "Other", "nowhere", "none", "vqa", {"train": source.splits["train"]})
    convert(other, tmp_path / "b", Options())
    config = OmegaConf.create({"filter_overlong_prompts": False, "cache_dir": str(tmp_path)})
    files = [str(tmp_path / name) for name in ("a/test.parquet", "a/test_blind.parquet", "b/train.parquet")]
    data = RLHFDataset(files, None, config, processor=object())
    assert len(data) == 3 + 3 + 8
    seen, blind = data[0]["raw_prompt"][0]["content"], data[3]["raw_prompt"][0]["content"]
    assert [part["type"] for part in seen] == ["image", "text"]
    assert blind == seen[1]["text"]
