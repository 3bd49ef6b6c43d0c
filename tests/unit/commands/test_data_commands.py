# SPDX-License-Identifier: Apache-2.0
"""`verl-ext data` on small copies of each data set in its real layout, and on folders of one's own."""

import subprocess
import sys

import pyarrow as pa
import pytest
from click.testing import CliRunner
from support.data_files import IMAGE, image, png, problems, read, write_lines, write_problems, write_table

from verl_ext.cli import main
from verl_ext.data.sets import hub_data_sets

TEXT = pa.string()
HUB = [data_set.name for data_set in hub_data_sets()]


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["data", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def photos(tmp_path):
    """A folder with metadata.jsonl beside its images."""
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    for seed in range(4):
        (folder / f"images/{seed}.png").write_bytes(png(seed))
    rows = [{"file_name": f"images/{seed}.png", "question": f"q{seed}", "answer": "no"} for seed in range(4)]
    write_lines(folder / "metadata.jsonl", rows)
    return folder


def test_geometry3k(tmp_path, out):
    for split, seeds in (("train", range(6)), ("validation", [10, 1]), ("test", [20, 2, 21])):
        write_problems(tmp_path / f"in/data/{split}-00000-of-00001.parquet", problems(seeds, answer=r"3 \sqrt { 2 }"))
    output = run("geometry3k", "--source", tmp_path / "in", "--output-dir", out, "--blind")
    assert f"{out / 'train.parquet'}: 4 rows" in output
    assert "left out of train: 0 unusable, 2 duplicates" in output
    assert [
        len(read(out / f"{name}.parquet")) for name in ("validation", "validation_blind", "test", "test_blind")
    ] == [
        *(2, 2),
        *(3, 3),
    ]
    row = read(out / "test.parquet")[0]
    assert (row["data_source"], row["reward_model"]["ground_truth"]) == ("geometry3k", r"3 \sqrt { 2 }")
    assert row["extra_info"]["answer_type"] == "expression"
    card = (out / "README.md").read_text()
    assert "local files, laid out as `hiyouga/geometry3k`" in card
    assert "MIT" in card


def test_virl39k(tmp_path, out):
    for shard, seeds in enumerate((range(5), range(5, 9))):
        write_problems(tmp_path / f"in/data/train-0000{shard}-of-00002.parquet", problems(seeds, "B"))
    run("virl39k", "--source", tmp_path / "in", "--output-dir", out, "--val-size", 3, "--blind")
    assert [len(read(out / f"{name}.parquet")) for name in ("train", "val", "val_blind")] == [6, 3, 3]
    indices = [row["extra_info"]["index"] for name in ("train", "val") for row in read(out / f"{name}.parquet")]
    assert sorted(indices) == list(range(9))


def test_virl39k_in_its_original_layout(tmp_path, out):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a-0.png").write_bytes(png(1))
    row = {
        "question": "<image>How many?",
        "answer": r"\boxed{4}",
        "PassRate_32BTrained": 0.5,
        "PassRate_7BBase": -1.0,
        "category": "(GradeSchool) Geometric",
        "source": "MMK12",
        "qid": "a",
        "image": ["images/a-0.png"],
    }
    kinds = {"image": pa.list_(TEXT), "PassRate_32BTrained": pa.float64(), "PassRate_7BBase": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, TEXT)) for name in row])
    write_table(tmp_path / "39Krelease.parquet", [row], schema)
    run("virl39k", "--source", tmp_path / "39Krelease.parquet", "--output-dir", out)
    (made,) = read(out / "train.parquet")
    assert made["images"] == [{"bytes": png(1)}]
    assert made["reward_model"]["ground_truth"] == "4"
    assert made["extra_info"]["source_id"] == "a"


def test_mmk12(tmp_path, out):
    names = ("id", "image", "question", "answer", "subject")
    schema = pa.schema([(name, IMAGE if name == "image" else TEXT) for name in names])
    for split, question, answer in (("train", "Find x.", "$x=2$"), ("test", "Which?\nA. one\nB. two", "B")):
        row = {"id": f"{split}-1", "question": question, "answer": answer, "subject": "math"}
        write_table(tmp_path / f"in/data/{split}-00000-of-00001.parquet", [{**row, "image": image(len(split))}], schema)
    run("mmk12", "--source", tmp_path / "in", "--output-dir", out, "--template", "plain")
    (train,), (test,) = read(out / "train.parquet"), read(out / "test.parquet")
    assert test["prompt"][0]["content"] == "<image>Which?\nA. one\nB. two"
    assert (test["extra_info"]["answer_type"], test["extra_info"]["source_id"]) == ("choice", "test-1")
    assert train["extra_info"]["answer_type"] == "expression"


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_mmk12_as_papo_copied_it(tmp_path, out, whole):
    file = tmp_path / "in/data/train-00000-of-00001.parquet"
    write_problems(file, problems([1, 2], "C"))
    options = ("--repo", "PAPOGalaxy/PAPO_MMK12_test", "--output-dir", out)
    run("mmk12", "--source", tmp_path / "in" if whole else file, *options)
    assert [path.name for path in sorted(out.iterdir())] == ["README.md", "test.parquet"]
    assert len(read(out / "test.parquet")) == 2


@pytest.mark.parametrize("name", HUB)
def test_json_lines_with_image_files_do_as_well(tmp_path, out, name):
    (tmp_path / "a.png").write_bytes(png())
    write_lines(tmp_path / "train.jsonl", [{"problem": "what?", "answer": "this", "images": ["a.png"]}])
    run(name, "--source", tmp_path, "--output-dir", out)
    assert [row["images"] for row in read(out / "train.parquet")] == [[{"bytes": png()}]]


@pytest.mark.parametrize("name", HUB)
def test_a_folder_without_the_data_set(tmp_path, out, name):
    output = run(name, "--source", tmp_path, "--output-dir", out, code=1)
    assert output.startswith(f"Error: {tmp_path}: no files of {name}; data/train-*.parquet (train)")
    assert output.count("\n") == 1


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_a_part_of_a_download_is_refused(tmp_path, out, whole):
    file = tmp_path / "in/data/train-00003-of-00010.parquet"
    write_problems(file, problems([1]))
    output = run("virl39k", "--source", tmp_path / "in" if whole else file, "--output-dir", out, code=1)
    assert output.startswith(f"Error: {file.parent}: train-00000-of-00010.parquet, train-00001-of-00010.parquet, ")
    assert output.endswith("train-00005-of-00010.parquet and 4 more of 10 parts are missing; download them as well\n")
    assert not out.exists()


@pytest.mark.parametrize("name", HUB)
def test_without_a_network_it_says_what_to_download(name, tmp_path):
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-m", "verl_ext.cli", "data", name, "--output-dir", str(tmp_path / "out")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    (repository, *_) = next(data_set for data_set in hub_data_sets() if data_set.name == name).repositories
    assert result.stderr.startswith(f"Error: {repository.id} (data/train-*.parquet")
    download = f"hf download {repository.id} --repo-type dataset --revision {repository.revision} --local-dir {name}"
    assert f"`{download}`" in result.stderr
    assert f"`verl-ext data {name} --source {name}`" in result.stderr


def test_pinned_revisions_are_commits_or_main():
    for data_set in hub_data_sets():
        for repository in data_set.repositories:
            pinned = len(repository.revision) == 40 and set(repository.revision) <= set("0123456789abcdef")
            assert pinned or repository.revision == "main"


def test_a_folder_of_images(photos, out):
    output = run("folder", photos, "--output-dir", out, "--val-size", 1, "--licence", "CC0")
    assert "train.parquet: 3 rows" in output
    rows = [row for name in ("train", "val") for row in read(out / f"{name}.parquet")]
    assert {row["data_source"] for row in rows} == {"photos"}
    assert {row["extra_info"]["answer_type"] for row in rows} == {"yes_no"}
    assert "Licence: CC0." in (out / "README.md").read_text()


def test_a_folder_of_splits(photos, tmp_path, out):
    (tmp_path / "both").mkdir()
    photos.rename(tmp_path / "both/train")
    write_lines(tmp_path / "both/test/metadata.jsonl", [{"image": "x.png", "question": "?", "answer": 3}])
    (tmp_path / "both/test/x.png").write_bytes(png(9))
    run("folder", tmp_path / "both", "--output-dir", out, "--name", "mine")
    assert [len(read(out / f"{name}.parquet")) for name in ("train", "test")] == [4, 1]


def test_a_table_and_a_test_table(photos, tmp_path, out):
    (photos / "test.csv").write_text('image,question,answer,choices\nimages/2.png,which?,red,"[""red"", ""blue""]"\n')
    run("folder", photos / "metadata.jsonl", "--test", photos / "test.csv", "--output-dir", out)
    (test,) = read(out / "test.parquet")
    assert test["reward_model"]["ground_truth"] == "A"
    assert len(read(out / "train.parquet")) == 3


def test_a_further_test_table_beside_a_test_split_is_refused(photos, tmp_path, out):
    (tmp_path / "both").mkdir()
    photos.rename(tmp_path / "both/train")
    write_lines(tmp_path / "both/test/metadata.jsonl", [{"image": "x.png", "question": "?", "answer": 3}])
    further = tmp_path / "both/train/metadata.jsonl"
    output = run("folder", tmp_path / "both", "--test", further, "--output-dir", out, code=1)
    assert output.startswith(f"Error: test={further}: {tmp_path / 'both'} has a test split of its own, ")
    assert not out.exists()


def test_images_elsewhere_need_leave(photos, tmp_path, out):
    (tmp_path / "far.png").write_bytes(png(7))
    write_lines(photos / "metadata.jsonl", [{"image": "../far.png", "question": "?", "answer": "1"}])
    output = run("folder", photos, "--output-dir", out, code=1)
    assert output.startswith(f"Error: {photos / 'metadata.jsonl'}: line 1: image '../far.png' lies outside of")
    run("folder", photos, "--output-dir", out, "--allow-outside")
    assert len(read(out / "train.parquet")) == 1


def test_a_folder_without_a_table(tmp_path, out):
    (tmp_path / "empty").mkdir()
    assert "has a metadata.jsonl, .csv or .parquet" in run("folder", tmp_path / "empty", "--output-dir", out, code=1)
    write_lines(tmp_path / "t.jsonl", [{"image": "a.png", "question": "?", "answer": "1"}])
    output = run("folder", tmp_path / "t.jsonl", "--test", tmp_path / "empty", "--output-dir", out, code=1)
    assert "is no table" in output


def test_unusable_rows_are_left_out_on_demand(photos, out):
    (photos / "images/1.png").write_bytes(b"")
    assert "line 2: cannot be read as an image" in run("folder", photos, "--output-dir", out, code=1)
    output = run("folder", photos, "--output-dir", out, "--skip-bad")
    assert "left out of train: 1 unusable, 0 duplicates" in output


def test_a_revision_and_a_source_exclude_each_other(tmp_path):
    output = run("geometry3k", "--source", tmp_path, "--revision", "main", code=2)
    assert "--revision is of the hub" in output


@pytest.mark.parametrize("name", ["easy-vqa", "folder", *HUB])
def test_help_has_an_example(name):
    assert f"verl-ext data {name}" in run(name, "--help")


def test_help_loads_no_heavy_library():
    code = "import sys; from verl_ext.commands.data import command; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pyarrow", "PIL", "numpy", "huggingface_hub", "jinja2", "tqdm"} & set(result.stdout.split())
