# SPDX-License-Identifier: Apache-2.0
"""The scripts in `examples/` and the files in `configs/`: what they give main_ppo, against verl and the papers.

Every script prints its arguments (DRY_RUN=print); these, and every file in `configs/`, are composed and checked in this
process as `verl-ext validate` does. One script does so itself (DRY_RUN=1), and one starts a program in main_ppo's place
that prints what it was given. Nothing is trained.
"""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.quickstart import quickstart

from verl_ext.commands.validate import check
from verl_ext.configuration.compose import compose

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted((ROOT / "examples").glob("*_trainer/run_*.sh"))
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
REWARD = "reward.custom_reward_function.reward_kwargs.format_weight"
PIXELS = "data.mm_processor_kwargs"

VIRL39K = {
    "data.train_files": "data/virl39k/train.parquet",
    "data.val_files": ["data/mmk12/test.parquet", "data/mmk12/test_blind.parquet"],
    "data.train_batch_size": 384,
    f"{ACTOR}.ppo_mini_batch_size": 128,
    f"{ROLLOUT}.n": 5,
    f"{ROLLOUT}.temperature": 1.0,
    f"{ROLLOUT}.top_p": 0.99,
    f"{ACTOR}.optim.lr": 1e-6,
    f"{ACTOR}.optim.weight_decay": 0.01,
    "data.max_prompt_length": 4096,
    "data.max_response_length": 2048,
    f"{PIXELS}.min_pixels": 200704,
    f"{PIXELS}.max_pixels": 1003520,
    "trainer.total_epochs": 2,
    REWARD: 0.1,
}
DAPO = {
    f"{ACTOR}.clip_ratio_low": 0.2,
    f"{ACTOR}.clip_ratio_high": 0.28,
    f"{ACTOR}.use_kl_loss": False,
    f"{ACTOR}.loss_agg_mode": "token-mean",
    "algorithm.filter_groups.enable": True,
}
GRPO_KL = {
    f"{ACTOR}.clip_ratio_low": 0.2,
    f"{ACTOR}.clip_ratio_high": 0.3,
    f"{ACTOR}.use_kl_loss": True,
    f"{ACTOR}.kl_loss_coef": 0.01,
    "algorithm.filter_groups.enable": False,
}
PAPERS = {
    "grpo": {**VIRL39K, **GRPO_KL, "algorithm.adv_estimator": "grpo"},
    "papo": {**VIRL39K, **GRPO_KL, "perception.papo.coef": 0.02, "perception.ablation.probability": 0.6},
    "pgpo": {**VIRL39K, **DAPO, "perception.pgpo.threshold": 0.4, "perception.pgpo.boost": 2.0},
    "pepo": {
        "data.train_files": "data/geometry3k/train.parquet",
        "data.val_files": ["data/geometry3k/test.parquet", "data/geometry3k/test_blind.parquet"],
        "data.train_batch_size": 8,
        f"{ACTOR}.ppo_mini_batch_size": 8,
        f"{ROLLOUT}.n": 8,
        f"{ROLLOUT}.temperature": 1.0,
        f"{ROLLOUT}.top_p": 1.0,
        f"{ROLLOUT}.top_k": 50,
        f"{ACTOR}.optim.lr": 1e-6,
        "data.max_response_length": 1024,
        "data.max_prompt_length": 1024,
        "data.mm_processor_kwargs": {},
        "trainer.total_epochs": 1,
        REWARD: 0.5,
        f"{ACTOR}.clip_ratio_low": 0.2,
        f"{ACTOR}.clip_ratio_high": 0.2,
        f"{ACTOR}.kl_loss_coef": 0.001,
        f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean",
        "perception.pepo.gate_alpha": 0.05,
        "perception.pepo.temperature": 1.8,
    },
    "vgpo": {
        **VIRL39K,
        **DAPO,
        "data.train_batch_size": 512,
        f"{ROLLOUT}.n": 8,
        f"{PIXELS}.min_pixels": 262144,
        f"{PIXELS}.max_pixels": 4194304,
        REWARD: 0,
        f"{ROLLOUT}.val_kwargs.temperature": 0.6,
        f"{ROLLOUT}.val_kwargs.top_p": 0.95,
        "perception.vgpo.compensation": 0.3,
        "perception.vgpo.tail_start": 0.5,
        "perception.vgpo.gate_fraction": 0.2,
    },
    "vppo": {
        **VIRL39K,
        **DAPO,
        f"{ROLLOUT}.n": 8,
        REWARD: 0,
        f"{ROLLOUT}.val_kwargs.n": 8,
        "perception.vppo.top_fraction": 0.4,
        "perception.vppo.floor": 0.9,
        "perception.ablation.probability": 0.5,
    },
}
"""What a paper or its scripts set, by key of the composed configuration; the folders' names are the methods'."""

OWN = {
    "papo_trainer/run_qwen2_5_vl_3b": {"perception.papo.entropy_coef": 0.0},
    "papo_trainer/run_qwen2_5_vl_7b": {"perception.papo.entropy_coef": 0.05},
    "papo_trainer/run_qwen2_5_vl_32b": {"perception.papo.entropy_coef": 0.05},
    "vppo_trainer/run_qwen2_5_vl_7b": {"perception.vppo.entropy_coef": 0.06},
    "papo_trainer/run_qwen3_vl_": {"perception.papo.coef": 0.01, "perception.papo.entropy_coef": 0.0},
    "vppo_trainer/run_qwen3_vl_": {
        "perception.vppo.entropy_coef": 0.12,
        "data.max_response_length": 8192,
        "trainer.total_training_steps": 130,
    },
}
"""What single scripts set differently, by the beginning of their path."""

PACKED, PATCH = "actor_rollout_ref.model.use_remove_padding", "data.image_patch_size"
THINKING = "data.apply_chat_template_kwargs"
FAMILIES = {
    "qwen2_5_vl": {},
    "qwen3_vl": {PATCH: 16, THINKING: {}, REWARD: 0, PACKED: True},
    "qwen3_5": {PATCH: 16, THINKING: {"enable_thinking": False}, REWARD: 0, PACKED: False},
}
"""What all scripts of a family of models set, whatever the method."""

CHECKPOINTS = {
    "qwen2_5_vl_3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen2_5_vl_7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen2_5_vl_32b": "Qwen/Qwen2.5-VL-32B-Instruct",
    "qwen3_vl_4b": "Qwen/Qwen3-VL-4B-Instruct",
    "qwen3_vl_8b": "Qwen/Qwen3-VL-8B-Instruct",
    "qwen3_5_9b": "Qwen/Qwen3.5-9B",
}


def name(path):
    return str(path.relative_to(ROOT))


def method_of(script):
    return script.parent.name.removesuffix("_trainer")


def script_run(script, *extra, **variables):
    """The script's process, with nothing in the environment but what it needs and `variables`."""
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, **variables}
    command = ["bash", str(script), *extra]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=ROOT)


@cache
def arguments(script, *extra, **variables):
    done = script_run(script, *extra, DRY_RUN="print", **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@cache
def composed(script):
    return compose(arguments(script))


def values(config, keys):
    found = {key: OmegaConf.select(config, key) for key in keys}
    return {key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in found.items()}


def test_every_method_model_and_backend_has_a_script():
    on_both = {f"qwen2_5_vl_{size}_{backend}" for size in ("3b", "7b", "32b") for backend in ("fsdp", "megatron")}
    runs = on_both | {"qwen3_vl_4b_fsdp", "qwen3_vl_8b_fsdp"}
    wanted = {f"examples/{method}_trainer/run_{run}.sh" for method in PAPERS for run in runs}
    assert {name(script) for script in SCRIPTS} == wanted | {"examples/pgpo_trainer/run_qwen3_5_9b_fsdp.sh"}


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_every_script_is_accepted_and_follows_its_paper(script):
    config = composed(script)
    check(config)
    expected = dict(PAPERS[method_of(script)])
    for beginning, own in OWN.items():
        expected.update(own if name(script).startswith(f"examples/{beginning}") else {})
    model, backend = script.stem.removeprefix("run_").rsplit("_", 1)
    expected.update(FAMILIES[model.rsplit("_", 1)[0]])
    assert values(config, expected) == expected
    assert config.actor_rollout_ref.model.path == CHECKPOINTS[model]
    assert config.actor_rollout_ref.actor.strategy == {"fsdp": "fsdp2"}.get(backend, backend)


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_batches_divide_over_the_ranks(script):
    config = composed(script)
    actor, rollout, trainer = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.trainer
    ranks = trainer.nnodes * trainer.n_gpus_per_node
    engine = actor.get("megatron") or {}
    parallel = engine.get("tensor_model_parallel_size", 1) * engine.get("pipeline_model_parallel_size", 1)
    assert ranks % parallel == 0
    assert ranks % rollout.tensor_model_parallel_size == 0
    assert config.data.train_batch_size % actor.ppo_mini_batch_size == 0
    assert actor.ppo_mini_batch_size * rollout.n % (ranks // parallel) == 0
    assert actor.ppo_max_token_len_per_gpu >= config.data.max_prompt_length + config.data.max_response_length


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_headers_say_what_is_followed(script):
    header = [line for line in script.read_text().splitlines() if line.startswith("# ")]
    assert header[0] == "# SPDX-License-Identifier: Apache-2.0"
    assert header[1].lower().startswith(f"# {method_of(script)}")
    assert header[2].startswith("# Follows ")
    assert os.access(script, os.X_OK)


def test_the_readme_lists_the_variables():
    lines = [line for path in (ROOT / "examples").rglob("*.sh") for line in path.read_text().splitlines()]
    code = "\n".join(line for line in lines if not line.startswith("#"))
    readable = set(re.findall(r"\$\{([A-Z][A-Z_]*):?-", code))
    rows = [line for line in (ROOT / "examples/README.md").read_text().splitlines() if line.startswith("| `")]
    told = {variable for row in rows for variable in re.findall(r"`([A-Z][A-Z_]*)`", row.split(" | ")[0])}
    assert told == readable


SEVEN_B = ROOT / "examples/pgpo_trainer/run_qwen2_5_vl_7b_fsdp.sh"
MEGATRON = ROOT / "examples/pgpo_trainer/run_qwen2_5_vl_7b_megatron.sh"
QWEN3_VL = ROOT / "examples/papo_trainer/run_qwen3_vl_8b_fsdp.sh"
QWEN3_5 = ROOT / "examples/pgpo_trainer/run_qwen3_5_9b_fsdp.sh"


TOGGLES = {
    "NNODES": "2",
    "NGPUS": "4",
    "MODEL_PATH": "/models/own",
    "DATA_DIR": "/data/my sets",
    "RECIPE": "grpo",
    "LORA": "16",
    "OFFLOAD": "1",
    "SP": "2",
    "MIN_PIXELS": "",
    "MAX_PIXELS": "",
    "RECORD_EVERY": "7",
    "STEPS": "10",
    "PROJECT": "p",
    "EXPERIMENT": "e",
    "PERCEPTION": "papo_d",
}
TOGGLED = {
    "trainer.nnodes": 2,
    "trainer.n_gpus_per_node": 4,
    "actor_rollout_ref.model.path": "/models/own",
    "data.train_files": "/data/my sets/virl39k/train.parquet",
    "data.val_files": ["/data/my sets/mmk12/test.parquet", "/data/my sets/mmk12/test_blind.parquet"],
    "algorithm.filter_groups.enable": False,
    "actor_rollout_ref.model.lora_rank": 16,
    "actor_rollout_ref.model.lora_alpha": 32,
    f"{ACTOR}.fsdp_config.param_offload": True,
    f"{ACTOR}.fsdp_config.optimizer_offload": True,
    f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size": 2,
    "data.mm_processor_kwargs": {},
    "trainer.total_training_steps": 10,
    "trainer.default_local_dir": "checkpoints/p/e",
    "perception.papo.coef": 0.01,
    "perception.record_every": 7,
}


def test_environment_toggles():
    assert values(compose(arguments(SEVEN_B, **TOGGLES)), TOGGLED) == TOGGLED


def test_without_a_method_it_is_the_baseline():
    config = compose(arguments(SEVEN_B, PERCEPTION=""))
    assert "perception" not in config
    assert config.trainer.v1.trainer_mode == "sync"
    expected = {**VIRL39K, **DAPO}
    assert values(config, expected) == expected


def test_a_baseline_keeps_the_patch_size_of_its_model():
    config = compose(arguments(QWEN3_VL, PERCEPTION=""))
    assert "perception" not in config
    assert config.data.image_patch_size == 16


def test_the_coefficient_of_qwen3_vl_is_of_one_variant_and_gives_way_to_arguments():
    assert compose(arguments(QWEN3_VL, PERCEPTION="papo_g_7b")).perception.papo.coef == 0.02
    assert compose(arguments(QWEN3_VL, "perception.papo.coef=0.03")).perception.papo.coef == 0.03


def test_qwen3_5_packs_and_thinks_when_it_is_told_to():
    config = compose(arguments(QWEN3_5, REMOVE_PADDING="True", THINKING="True"))
    expected = {PACKED: True, THINKING: {"enable_thinking": True}}
    assert values(config, expected) == expected


def test_qwen3_5_may_pad_a_whole_prompt_and_response():
    config = composed(QWEN3_5)
    assert config.actor_rollout_ref.actor.use_dynamic_bsz
    assert config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu == 4096 + 2048


def test_arguments_come_last():
    assert arguments(SEVEN_B, "trainer.nnodes=7", NNODES="2")[-1] == "trainer.nnodes=7"


def test_adapters_are_refused_on_megatron():
    done = script_run(MEGATRON, DRY_RUN="print", LORA="8")
    assert (done.returncode, done.stdout) == (2, "")
    assert "LORA=8: adapters have not been tried on Megatron" in done.stderr


PEPO = ROOT / "examples/pepo_trainer/run_qwen2_5_vl_3b_fsdp.sh"


def test_pixels_of_a_method_that_has_none():
    config = compose(arguments(PEPO, MIN_PIXELS="3136", MAX_PIXELS="200704"))
    assert config.data.mm_processor_kwargs == {"min_pixels": 3136, "max_pixels": 200704}


@pytest.mark.parametrize(("script", "variable"), [(PEPO, "MIN_PIXELS=3136"), (SEVEN_B, "MAX_PIXELS=")])
def test_one_limit_of_pixels_alone_is_refused(script, variable):
    done = script_run(script, DRY_RUN="print", **dict([variable.split("=")]))
    assert (done.returncode, done.stdout) == (2, "")
    assert "give both or neither; the processor ignores one alone" in done.stderr.splitlines()[-2]


@pytest.fixture
def started(tmp_path):
    """Run a script with a program in Python's place that writes its file of metrics; the file and the arguments."""
    program = tmp_path / "program"
    program.write_text(
        '#!/usr/bin/env bash\necho start >"$VERL_FILE_LOGGER_PATH"\nprintf "%s\\n" "$VERL_FILE_LOGGER_PATH" "$@"\n'
    )
    program.chmod(0o755)

    def start(*extra, **variables):
        folder = tmp_path / "run (1)"
        done = script_run(SEVEN_B, *extra, **{"PYTHON": str(program), "SAVE_DIR": str(folder), **variables})
        assert done.returncode == 0, done.stderr
        path, *given = done.stdout.splitlines()
        return Path(path).relative_to(tmp_path), given

    return start


def test_each_start_has_its_own_metrics_in_the_folder_of_the_run(started, tmp_path):
    files = [started()[0] for _ in range(2)]
    assert files == [Path("run (1)/metrics-0.jsonl"), Path("run (1)/metrics-1.jsonl")]
    assert started(f"trainer.default_local_dir={tmp_path}/other")[0] == Path("other/metrics-0.jsonl")
    assert started(VERL_FILE_LOGGER_PATH=f"{tmp_path}/own")[0] == Path("own")


def test_an_evaluation_leaves_the_metrics_of_the_training_alone(started):
    files = [started("trainer.val_only=True")[0] for _ in range(2)]
    assert files == [Path(f"run (1)/evaluation/metrics-{number}.jsonl") for number in range(2)]
    assert started("trainer.val_only=False")[0] == Path("run (1)/metrics-0.jsonl")


def test_workers_of_a_running_ray_are_told_the_file_of_metrics(started, tmp_path):
    path, (_, module, *given) = started()
    assert module == "verl.trainer.main_ppo"
    variables = compose(
        [argument for argument in given if "ray_kwargs" in argument]
    ).ray_kwargs.ray_init.runtime_env.env_vars
    assert variables == {"VERL_FILE_LOGGER_PATH": str(tmp_path / path)}


def test_a_dry_run_makes_no_folder(tmp_path):
    assert script_run(SEVEN_B, DRY_RUN="print", SAVE_DIR=str(tmp_path / "run")).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_dry_run_starts_nothing():
    done = script_run(SEVEN_B, DRY_RUN="yes")
    assert done.returncode == 2
    assert "DRY_RUN=yes: write 1" in done.stderr


def test_a_dry_run_of_the_whole_script():
    done = script_run(SEVEN_B, DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("valid: method pgpo, recipe dapo, trainer perception_sync, model Qwen/")
    assert "-m verl_ext.cli validate data.train_files=" in done.stderr


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_every_config_is_accepted(path):
    config = compose([], config_path=str(path.parent), config_name=path.stem)
    check(config)
    assert f"--config-name={path.stem}" in path.read_text()
    assert f"VERL_FILE_LOGGER_PATH={config.trainer.default_local_dir}/metrics" in path.read_text()
    assert "perception" not in config or config.perception.record_every > 0


@pytest.mark.parametrize("path", [path for path in CONFIGS if "tiny" not in path.stem], ids=name)
def test_a_config_is_the_script_of_its_name(path):
    method, _, rest = path.stem.partition("_")
    script = ROOT / f"examples/{method}_trainer/run_{rest}.sh"
    assert compose([], config_path=str(path.parent), config_name=path.stem) == composed(script)


def test_the_tiny_config_is_the_quick_start():
    config = compose([], config_path=str(ROOT / "configs"), config_name="pgpo_tiny_cpu")
    assert config == compose([override.replace(f"{ROOT}/", "") for override in quickstart().OVERRIDES])
