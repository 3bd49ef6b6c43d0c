# SPDX-License-Identifier: Apache-2.0
"""The easy-VQA conversion, on the real data set, and what verl's RLHFDataset reads from it."""

import io
import json
import shutil
from importlib import import_module

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from verl_ext.cli import main
from verl_ext.data.easy_vqa import BLIND_DATA_SOURCE, DATA_SOURCE, write_easy_vqa
from verl_ext.data.easy_vqa_images import describe_images
from verl_ext.data.easy_vqa_source import EasyVqa, Question, all_questions, package_root, read_images
from verl_ext.errors import DataError

FILES = ("sft", "train", "test", "test_blind")


def loaded(root):
    questions = all_questions(root)
    return EasyVqa(questions, read_images(root, questions))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("easy_vqa")
    write_easy_vqa(target)
    return target


@pytest.fixture(scope="module")
def tables(folder):
    return {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in FILES}


@pytest.fixture
def small_root(tmp_path):
    """The first image of each split with its questions, in the package's own layout."""
    root = package_root()
    for split in ("train", "test"):
        (tmp_path / split / "images").mkdir(parents=True)
        shutil.copy(root / split / "images" / "0.png", tmp_path / split / "images")
        rows = [row for row in json.loads((root / split / "questions.json").read_text()) if row[2] == 0]
        (tmp_path / split / "questions.json").write_text(json.dumps(rows))
    return tmp_path


def test_train_and_sft_cover_the_train_split_without_sharing_an_image(tables):
    sft, rl = ({row["extra_info"]["image_id"] for row in tables[name]} for name in ("sft", "train"))
    assert not sft & rl
    assert len(sft) == len(rl) == 2000
    assert len(tables["sft"]) + len(tables["train"]) == 38575
    assert {row["extra_info"]["split"] for name in ("sft", "train") for row in tables[name]} == {"train"}
    assert {row["extra_info"]["split"] for name in ("test", "test_blind") for row in tables[name]} == {"test"}


def test_index_is_unique_over_all_files(tables):
    indices = [row["extra_info"]["index"] for name in FILES for row in tables[name]]
    assert len(set(indices)) == len(indices)


@pytest.mark.parametrize("name", FILES)
def test_placeholder_images_and_source_agree(tables, name):
    for row in tables[name]:
        (message,) = row["prompt"]
        assert message["role"] == "user"
        assert message["content"].startswith("<image>") == bool(row["images"])
        assert row["data_source"] == (DATA_SOURCE if row["images"] else BLIND_DATA_SOURCE)
        assert row["reward_model"] == {"style": "rule", "ground_truth": row["extra_info"]["answer"]}


def test_images_are_rgb_png_of_64_pixels(tables):
    for row in tables["train"][::500]:
        image = Image.open(io.BytesIO(row["images"][0]["bytes"]))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))


def test_blind_test_asks_the_same_questions(tables):
    def strip(row):
        return row["prompt"][0]["content"].removeprefix("<image>"), row["reward_model"]

    assert len(tables["test"]) == 512
    assert [strip(row) for row in tables["test"]] == [strip(row) for row in tables["test_blind"]]
    assert all(row["images"] for row in tables["test"])
    assert not any(row["images"] for row in tables["test_blind"])


def test_warm_start_responses_name_what_is_seen_and_end_in_the_answer(tables):
    blind = [row for row in tables["sft"] if not row["images"]]
    assert len(blind) == round(0.1 * len(tables["sft"]))
    assert not any("no image" in row["response"] for row in blind)
    for row in tables["sft"]:
        assert row["response"].endswith(f" \\boxed{{{row['extra_info']['answer']}}}")


def test_descriptions_agree_with_the_pixels():
    # Shades vary too much to name every colour from pixels, but red has more red than blue, and blue less.
    data = loaded(package_root())
    seen = describe_images(data.questions)
    for key in [key for key, text in seen.items() if " red " in text or " blue " in text][:200]:
        image = Image.open(io.BytesIO(data.images[key]))
        *_, (_, foreground), _background = sorted(image.getcolors(64 * 64))
        assert (foreground[0] > foreground[2]) == (" red " in seen[key]), seen[key]


def test_same_arguments_give_the_same_files(folder, tmp_path):
    write_easy_vqa(tmp_path)
    for name in FILES:
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(pq.read_table(folder / f"{name}.parquet"))


def test_val_size_leaves_the_other_files_alone(folder, tmp_path):
    assert write_easy_vqa(tmp_path, val_size=7)["test"] == 7
    for name in ("sft", "train"):
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(pq.read_table(folder / f"{name}.parquet"))


def test_data_card_counts(folder, tables):
    card = (folder / "README.md").read_text()
    for name in FILES:
        assert f"| `{name}.parquet` | {len(tables[name])} |" in card
    assert "MIT" in card


def test_undetermined_and_eliminated_attributes():
    def ask(image_id, *pairs):
        return [Question(i, "train", image_id, text, answer) for i, (text, answer) in enumerate(pairs)]

    questions = [
        *ask(0, ("what is the red shape?", "circle")),
        *ask(1, ("what color is the shape?", "teal")),
        *ask(2, ("is there not a circle?", "yes"), ("is no triangle present?", "yes"), ("is there a red shape?", "no")),
        *ask(3, ("is there not a gray shape?", "no")),
    ]
    seen = describe_images(questions)
    assert list(seen.values()) == ["a red circle", "a teal shape", "a rectangle", "a gray shape"]


def test_contradiction_names_the_row():
    questions = [
        Question(4, "train", 1, "is there a circle?", "yes"),
        Question(5, "train", 1, "what is the red shape?", "triangle"),
    ]
    with pytest.raises(DataError, match="row with index 5"):
        describe_images(questions)


@pytest.mark.parametrize("row", [["what is it?", "purple", 0], ["what is it?", "red"], "text", ["", "red", 0]])
def test_bad_row_is_named(small_root, row):
    path = small_root / "train" / "questions.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, row]))
    with pytest.raises(DataError, match=f"row with index {len(rows)} "):
        loaded(small_root)


def test_broken_files_are_named(small_root):
    (small_root / "test" / "images" / "0.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"0\.png"):
        loaded(small_root)
    (small_root / "train" / "questions.json").write_text("{")
    with pytest.raises(DataError, match=r"questions\.json"):
        loaded(small_root)


@pytest.mark.parametrize("option", [{"rl_fraction": 1.5}, {"blind_fraction": -0.1}, {"val_size": 0}, {"val_size": 99}])
def test_options_out_of_range(small_root, tmp_path, option):
    with pytest.raises(DataError, match=next(iter(option))):
        write_easy_vqa(tmp_path / "out", root=small_root, **option)


@pytest.mark.parametrize("rl_fraction", [0.0, 1.0])
def test_everything_on_one_side(small_root, tmp_path, rl_fraction):
    counts = write_easy_vqa(tmp_path / "out", root=small_root, rl_fraction=rl_fraction, val_size=1)
    assert 0 in (counts["sft"], counts["train"])
    assert "response" in pq.read_schema(tmp_path / "out" / "sft.parquet").names


def test_command_writes_and_reports(tmp_path):
    result = CliRunner().invoke(main, ["data", "easy-vqa", "--output-dir", str(tmp_path), "--val-size", "3"])
    assert result.exit_code == 0, result.output
    assert "test_blind.parquet: 3 rows" in result.output


def test_command_prints_data_errors_as_one_line(tmp_path):
    result = CliRunner().invoke(main, ["data", "easy-vqa", "--output-dir", str(tmp_path), "--val-size", "0"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: val_size=0")
    assert result.output.count("\n") == 1


def test_verl_reads_rows_with_and_without_images(folder, tmp_path):
    import_module("verl")
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    tokenizer = None  # only prompt filtering, which is off, needs one
    config = OmegaConf.create({"filter_overlong_prompts": False, "cache_dir": str(tmp_path)})
    files = [str(folder / f"{name}.parquet") for name in ("test", "test_blind")]
    dataset = RLHFDataset(files, tokenizer, config, processor=object())
    assert len(dataset) == 1024
    seen, blind = dataset[0], dataset[512]
    assert [part["type"] for part in seen["raw_prompt"][0]["content"]] == ["image", "text"]
    assert blind["raw_prompt"][0]["content"] == seen["raw_prompt"][0]["content"][1]["text"]
    assert seen["index"] != blind["index"]


def test_a_folder_that_cannot_be_written_is_named(small_root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/out: cannot be written"):
        write_easy_vqa(tmp_path / "file/out", val_size=1, root=small_root)


def test_a_file_that_cannot_be_completed_leaves_none_of_the_others(small_root, tmp_path):
    (tmp_path / "out/train.parquet.part").mkdir(parents=True)
    with pytest.raises(DataError, match="out: cannot be written"):
        write_easy_vqa(tmp_path / "out", val_size=1, root=small_root)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train.parquet.part"]


def test_progress_is_shown_for_long_passes_alone(small_root, tmp_path, capsys, monkeypatch):
    write_easy_vqa(tmp_path / "out", val_size=1, root=small_root)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("verl_ext.data.progress.QUIET_SECONDS", 0)
    write_easy_vqa(tmp_path / "out", val_size=1, root=small_root)
    shown = capsys.readouterr().err
    assert "reading: " in shown
    assert "writing: " in shown
