# SPDX-License-Identifier: Apache-2.0
"""`scripts/evaluate.sh`: its commands, its mistakes, a real merge by verl, and the table of the results."""

import json
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from support import workers
from transformers import AutoModelForImageTextToText

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts/evaluate.sh"
TABLE = ROOT / "scripts/evaluation_table.py"


def run(*arguments, **variables):
    environment = {**os.environ, "PYTHON": sys.executable, **variables}
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


def commands(*arguments, **variables):
    done = run(*arguments, DRY_RUN="1", **variables)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def options(words):
    """{--name: value} of a command."""
    return {word: value for word, value in pairwise(words) if word.startswith("--")}


@pytest.fixture
def step(tmp_path):
    """What verl's FSDP writes for a step, without its weights."""
    actor = tmp_path / "run" / "global_step_7" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "fsdp_config.json").write_text('{"world_size": 1}')
    return actor.parent


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


def test_help_and_syntax():
    assert "evaluate.sh CHECKPOINT" in run("--help").stdout
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_a_step_is_merged_and_evaluated(step):
    merge, move, *evaluations, table = commands(step)
    assert merge[1:4] == ["-m", "verl.model_merger", "merge"]
    partial = f"{step}/merged.partial"
    assert options(merge) == {"--backend": "fsdp", "--local_dir": f"{step}/actor", "--target_dir": partial}
    assert move == ["mv", partial, f"{step}/merged"]
    assert len(evaluations) == 9
    assert table[1:] == [str(SCRIPT.parent / "evaluation_table.py"), "evaluations/run-global_step_7"]
    for words in evaluations:
        assert words[1:3] == ["-m", "lmms_eval"]
        assert f"model={step}/merged" in options(words)["--model_args"].split(",")


def test_eight_seeds_at_temperature_one_and_one_greedy_run(model):
    *sampled, greedy, _ = commands(model, OUTPUT="out")
    for seed, words in enumerate(sampled):
        told = options(words)
        assert (told["--seed"], told["--output_path"]) == (str(seed), f"out/sampled-{seed}")
        assert "max_new_tokens=2048" in told["--model_args"].split(",")
        assert told["--gen_kwargs"] == f"temperature=1.0,top_p=1.0,max_new_tokens=2048,seed={seed}"
    assert seed == 7
    assert options(greedy)["--gen_kwargs"].startswith("temperature=0,")
    assert options(greedy)["--output_path"] == "out/greedy"


def test_a_model_of_the_hub_is_not_merged():
    first, *_ = commands("hub:Qwen/Qwen2.5-VL-7B-Instruct", SAMPLES="1", GREEDY="0", TASKS="a,b")
    assert "model=Qwen/Qwen2.5-VL-7B-Instruct" in options(first)["--model_args"].split(",")
    assert options(first)["--tasks"] == "a,b"


def test_saved_hugging_face_weights_need_no_merge(step):
    (step / "actor" / "huggingface" / "model.safetensors").touch()
    first, *_ = commands(step)
    assert f"model={step}/actor/huggingface" in options(first)["--model_args"].split(",")


def test_megatron_is_told_by_its_folder(step):
    (step / "actor" / "fsdp_config.json").unlink()
    (step / "actor" / "model").mkdir()
    assert options(commands(step)[0])["--backend"] == "megatron"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "evaluate: no checkpoint; see --help"),
        (["absent/global_step_1"], "evaluate: no such checkpoint: absent/global_step_1"),
        (["a", "b"], "evaluate: one checkpoint, not 2; see --help"),
        ([ROOT / "scripts"], f"evaluate: {ROOT}/scripts is neither a step of a run (actor/) nor a model (config.json)"),
    ],
)
def test_a_mistake_is_one_line(arguments, message):
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{message}\n")


def test_a_step_without_weights_is_a_mistake(step):
    (step / "actor" / "fsdp_config.json").unlink()
    done = run(step)
    assert done.returncode == 1
    assert done.stderr == f"evaluate: {step}/actor holds neither an FSDP nor a Megatron checkpoint\n"


def test_without_the_harness(model):
    done = run(model, EVAL_PYTHON="false")
    assert (done.returncode, done.stderr) == (1, "evaluate: false has no lmms-eval; see docs/evaluating.md\n")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_checkpoint_is_merged(tmp_path):
    """FSDP2's own files of the tiny model; the merged weights are the worker's, in bf16 as verl's merger has them."""
    with workers.process_group():
        worker = workers.build()
        worker.save_checkpoint(str(tmp_path / "global_step_1" / "actor"), global_step=1)
        expected = {name: tensor.full_tensor() for name, tensor in worker.actor.engine.module.state_dict().items()}
    done = run(tmp_path / "global_step_1", TASKS="")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "global_step_1" / "merged"
    merged = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).state_dict()
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name].bfloat16()) for name in expected)
    assert (folder / "tokenizer.json").exists()
    assert (folder / "processor_config.json").exists()
    again = run(tmp_path / "global_step_1", TASKS="", DRY_RUN="1")
    assert (again.returncode, again.stdout) == (0, "")


def results(folder, values):
    """lmms-eval's layout: a folder of the model with a file named after the time."""
    (folder / "model").mkdir(parents=True)
    told = {
        task: {"alias": task, "acc_score,none": value, "acc_score_stderr,none": 0.1} for task, value in values.items()
    }
    told["group"] = {"alias": "group", " ": " "}
    (folder / "model" / "20261121_120000_results.json").write_text(json.dumps({"results": told}))


def table(output):
    done = subprocess.run([sys.executable, TABLE, output], capture_output=True, text=True, timeout=60)
    return done.returncode, [line.split() for line in done.stdout.splitlines()], done.stderr


def test_the_table_averages_the_sampled_runs(tmp_path):
    results(tmp_path / "sampled-0", {"mathvista": 0.5, "wemath": 0.25})
    results(tmp_path / "sampled-1", {"mathvista": 0.6, "wemath": 0.25})
    results(tmp_path / "greedy", {"mathvista": 0.7, "wemath": 0.5})
    status, lines, _ = table(tmp_path)
    assert status == 0
    assert lines[:3] == [
        ["task", "avg@2", "spread", "greedy"],
        ["mathvista", "55.00", "7.07", "70.00"],
        ["wemath", "25.00", "0.00", "50.00"],
    ]


@pytest.mark.parametrize("incomplete", ["sampled-1", "greedy"])
def test_runs_of_unequal_tasks_are_refused(tmp_path, incomplete):
    for name in ("sampled-0", "sampled-1", "greedy"):
        tasks = ("mathvista",) if name == incomplete else ("mathvista", "wemath")
        results(tmp_path / name, dict.fromkeys(tasks, 0.5))
    status, lines, error = table(tmp_path)
    assert (status, lines) == (1, [])
    assert error == f"evaluation_table: {incomplete} has no accuracy of wemath, which other runs have\n"


def test_without_a_greedy_run(tmp_path):
    results(tmp_path / "sampled-0", {"mathvista": 0.5})
    assert table(tmp_path)[1][1] == ["mathvista", "50.00", "-", "-"]


def test_runs_of_an_earlier_evaluation_are_not_mixed_in(model, tmp_path):
    output = tmp_path / "out"
    results(output / "sampled-9", {"mathvista": 0.5})
    done = run(model, OUTPUT=str(output), EVAL_PYTHON="false")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"evaluate: {output} has the runs of an earlier evaluation")
    assert run(model, OUTPUT=str(output), TASKS="").returncode == 0


def test_a_run_without_results_is_named(tmp_path):
    (tmp_path / "sampled-0").mkdir()
    status, _, error = table(tmp_path)
    assert status == 1
    assert error == f"evaluation_table: no *_results.json in {tmp_path}/sampled-0\n"
