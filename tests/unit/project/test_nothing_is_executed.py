# SPDX-License-Identifier: Apache-2.0
"""Data, records and models are read, never run: attacks that would leave a file behind, or ask the network."""

import ast
import importlib.util
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from omegaconf import OmegaConf
from support.attacks import model_with_code, no_network, pickled, script
from support.configuration import SMALL, configuration
from support.data_files import png, write_lines
from support.synthetic_run import write_run
from support.tiny import ROOT, processor

import verl_ext
from verl_ext import cli
from verl_ext.data.row_check import is_fetched
from verl_ext.rollout.dataset import CheckedRLHFDataset
from verl_ext.supervision.torch_file import defect

PACKAGE = Path(verl_ext.__file__).parent
URL = "http://192.0.2.1/picture.png"
REWARD = "reward.custom_reward_function.path=pkg://verl_ext.rewards.boxed_answer"


@pytest.fixture
def sentinel(tmp_path):
    """A path at which there is a file as soon as an attack has succeeded."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


@pytest.fixture
def network(monkeypatch):
    """What was asked of the network; nothing may be."""
    with no_network(monkeypatch) as asked:
        yield asked
    assert asked == []


def run(*words):
    return CliRunner().invoke(cli.main, list(map(str, words)))


def question(**more):
    return {"question": "<image>what?", "answer": "red", "images": [], **more}


def test_the_attacks_work(tmp_path):
    """Loaded by whoever is careless, they do leave the file."""
    import pickle

    pickle.loads(pickled(tmp_path / "pickle"))
    (tmp_path / "module.py").write_text(script(tmp_path / "import"))
    spec = importlib.util.spec_from_file_location("module", tmp_path / "module.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert (tmp_path / "pickle").exists()
    assert (tmp_path / "import").exists()


def test_the_network_is_watched(monkeypatch):
    import urllib.request

    with no_network(monkeypatch) as asked, pytest.raises(OSError, match="no network here"):
        urllib.request.urlopen(URL)
    assert asked == [("192.0.2.1", 80)]


# Data


def folder_of(tmp_path, rows, **files):
    folder = tmp_path / "photos"
    folder.mkdir()
    write_lines(folder / "metadata.jsonl", rows)
    for name, content in files.items():
        (folder / name.replace("_py", ".py")).write_text(content)
    return folder


def test_a_script_beside_the_data(tmp_path, sentinel, network, monkeypatch):
    code = script(sentinel)
    (tmp_path / "a.png").write_bytes(png(1))
    folder = folder_of(tmp_path, [question(images="a.png")], photos_py=code, metadata_py=code, __init___py=code)
    (folder / "a.png").write_bytes(png(1))
    monkeypatch.chdir(folder)
    done = run("data", "folder", folder, "--output-dir", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "train.parquet").exists()


def test_a_pickle_in_place_of_an_image(tmp_path, sentinel, network):
    folder = folder_of(tmp_path, [question(images="a.png")])
    (folder / "a.png").write_bytes(pickled(sentinel))
    done = run("data", "folder", folder, "--output-dir", tmp_path / "out")
    assert done.exit_code == 1
    assert "line 1" in done.output


@pytest.mark.parametrize("image", [URL, "https://example.org/a.png", "file:///etc/hostname", "s3://bucket/a.png"])
@pytest.mark.parametrize(
    "form", [str, lambda image: [image], lambda image: json.dumps([image])], ids=["text", "list", "JSON"]
)
def test_an_address_in_place_of_an_image(tmp_path, network, image, form):
    folder = folder_of(tmp_path, [question(images=form(image))])
    done = run("data", "folder", folder, "--output-dir", tmp_path / "out")
    assert done.exit_code == 1
    assert "is a URL, which is not fetched" in done.output


def poisoned(path, columns, sentinel):
    """A Parquet file that claims to hold Python's own objects, as old releases of pyarrow believed."""
    told = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickled(sentinel)}
    column = pa.field("poison", pa.int64(), metadata=told)
    table = pa.Table.from_pylist(columns)
    table = table.append_column(column, pa.array([1] * len(columns))).replace_schema_metadata(
        {b"pandas": json.dumps({"index_columns": [], "columns": [{"pandas_type": "object"}]}).encode()}
    )
    pq.write_table(table, path)
    return path


def test_a_parquet_file_that_claims_objects(tmp_path, sentinel, network):
    rows = [question(images=[{"bytes": png(1)}], pickle=pickled(sentinel))]
    path = poisoned(tmp_path / "train.parquet", rows, sentinel)
    done = run("data", "folder", path, "--output-dir", tmp_path / "out")
    assert done.exit_code == 0, done.output


def training_row(**more):
    return {
        "data_source": "easy_vqa",
        "prompt": [{"role": "user", "content": "<image>what color is it?"}],
        "images": [{"bytes": png(1)}],
        "reward_model": {"style": "rule", "ground_truth": "red"},
        "extra_info": {"index": 0},
        **more,
    }


def test_the_data_set_of_a_training(tmp_path, sentinel, network, monkeypatch):
    """verl reads the files with `datasets`, from a folder in which modules are named like its builders."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("train.py", "parquet.py", "parquet/parquet.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(script(sentinel))
    path = poisoned(
        tmp_path / "train.parquet", [training_row(extra_info={"index": 0, "x": pickled(sentinel)})], sentinel
    )
    config = OmegaConf.create({**OmegaConf.to_container(configuration("+perception=pgpo").data)})
    data = CheckedRLHFDataset([str(path)], processor().tokenizer, config, processor())
    assert len(data) == 1
    assert data[0]["raw_prompt"]


# Records and checkpoints


def test_a_run_full_of_pickles(tmp_path, sentinel, network):
    """Reported with pickles as pictures, texts and neighbours."""
    folder = write_run(tmp_path / "run", steps=4, every=2)
    for path in sorted(folder.rglob("step_*.parquet")):
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            row["images"] = [pickled(sentinel)]
            row["ground_truth"] = repr(pickled(sentinel))
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    for name in ("data.pt", "model.pkl", "metrics.pickle", "sitecustomize.py", "global_step_4/data.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(script(sentinel).encode() if name.endswith(".py") else pickled(sentinel))
    done = run("report", folder, "--no-png")
    assert "Traceback" not in done.output
    assert done.exit_code == 1
    assert "image 0: not a PNG picture" in done.output


@pytest.mark.parametrize(
    "text", [f'<img src="{URL}">', f"<script>fetch('{URL}')</script>", "{{ 'ab' * 3 }}", "${'ab'.repeat(3)}"]
)
def test_markup_and_templates_in_tokens_stay_text(tmp_path, network, text):
    folder = write_run(tmp_path / "run", steps=4, every=2)
    for path in sorted(folder.rglob("step_*.parquet")):
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            row["tokens"] = [text, *row["tokens"][1:]]
            row["prompt"] = row["ground_truth"] = text
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    done = run("report", folder)
    assert done.exit_code == 0, done.output
    page = (folder / "report" / "report.html").read_text()
    assert "<script>fetch" not in page
    assert f'<img src="{URL}' not in page
    assert "ababab" not in page


def test_a_checkpoint_is_looked_at_without_being_loaded(tmp_path, sentinel):
    path = tmp_path / "data.pt"
    path.write_bytes(pickled(sentinel))
    assert defect(path) is None


# Models


@pytest.fixture(scope="module")
def train_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.parquet"
    pq.write_table(pa.Table.from_pylist([training_row()] * 4), path)
    return path


INSISTING = "perception.unverified_model=True"


@pytest.mark.parametrize(
    ("command", "model_type", "more", "said"),
    [
        pytest.param("doctor", "qwen2_5_vl", [], "", marks=pytest.mark.slow),
        ("doctor", "unheard_of", [], "(model_type unheard_of)"),
        pytest.param("doctor", "unheard_of", [INSISTING], "trust_remote_code", marks=pytest.mark.slow),
        ("validate", "unheard_of", [INSISTING], ""),
    ],
)
def test_code_of_a_model_stays_unread(tmp_path, sentinel, network, train_file, command, model_type, more, said):
    folder = model_with_code(tmp_path / "model", sentinel, model_type)
    files = [f"data.{split}_files={train_file}" for split in ("train", "val")]
    path = f"actor_rollout_ref.model.path={folder}"
    done = run(command, *SMALL, "+perception=pgpo", REWARD, *files, path, *more)
    assert "Traceback" not in done.output
    if (command, model_type) == ("doctor", "unheard_of"):
        assert done.exit_code == 1
    assert said in " ".join(done.output.split())


@pytest.mark.slow
def test_doctor_fetches_no_picture(tmp_path, network):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([training_row(images=[URL]), training_row(images=[URL])] * 2), path)
    done = run(
        "doctor", *SMALL, "+perception=pgpo", REWARD, *[f"data.{name}_files={path}" for name in ("train", "val")]
    )
    assert "Traceback" not in done.output
    assert "4 with pictures that verl fetches and this does not" in " ".join(done.output.split())


@pytest.mark.parametrize("form", [lambda url: url, lambda url: {"image": url}, lambda url: {"image_url": {"url": url}}])
@pytest.mark.parametrize("url", [URL, URL.upper(), "https://example.org/a.png"])
def test_every_form_of_a_picture_that_would_be_fetched(form, url):
    within = [{"role": "user", "content": [{"type": "image", "image": form(url)}, {"type": "text", "text": "?"}]}]
    assert is_fetched([{"role": "user", "content": "<image>?"}], [{"bytes": b""}, form(url)])
    assert is_fetched(within, [])
    assert not is_fetched([{"role": "user", "content": f"{url} <image>?"}], ["a.png", {"image": "file:///a.png"}])


def test_remote_code_is_off_unless_asked():
    assert configuration("+perception=pgpo").actor_rollout_ref.model.trust_remote_code is False


# The package's own source


def calls(tree):
    """(dotted name, keyword arguments) of every call whose function is a name or an attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords}


def is_constant(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def offences(source):
    """What a module does that would run what is in data."""
    tree = ast.parse(source)
    modules = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    modules |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    yield from sorted(modules & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"})
    for name, words in calls(tree):
        last = name.rpartition(".")[2]
        if name in ("eval", "exec", "compile", "__import__") or name in ("os.system", "yaml.load"):
            yield name
        if last == "read_pickle":
            yield name
        if last == "load" and name.startswith("torch") and not is_constant(words.get("weights_only"), True):
            yield f"{name} without weights_only=True"
        if last == "load" and name.startswith(("np.", "numpy.")) and "allow_pickle" in words:
            yield f"{name} with allow_pickle"
        if "trust_remote_code" in words and not is_constant(words["trust_remote_code"], False):
            yield f"{name} with trust_remote_code"
        if "shell" in words and not is_constant(words["shell"], False):
            yield f"{name} with shell"


SOURCES = [path for folder in ("verl_ext", "study", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("path", sorted(SOURCES), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_project_itself_runs_nothing(path):
    assert list(offences(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "eval('1')",
        "__import__(name)",
        "pandas.read_pickle(path)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=trust)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_the_scan_can_find_something(source):
    assert len(list(offences(source))) == 1
