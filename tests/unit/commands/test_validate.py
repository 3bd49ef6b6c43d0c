# SPDX-License-Identifier: Apache-2.0
"""`verl-ext validate`, and how a configuration is composed for it."""

import os
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner
from omegaconf import OmegaConf
from support.configuration import SMALL

from verl_ext.cli import main
from verl_ext.configuration.compose import compose, compose_with_choices
from verl_ext.errors import ConfigurationError

PGPO = [*SMALL, "+perception=pgpo"]


def run(*arguments):
    result = CliRunner().invoke(main, ["validate", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def mistake(overrides, **source):
    with pytest.raises(ConfigurationError) as caught:
        compose(overrides, **source)
    return caught.value


def test_a_fitting_configuration_is_one_line():
    result = run(*PGPO)
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    for part in ("method pgpo", "recipe dapo", "trainer perception_sync", "tiny-qwen2.5-vl", "engine fsdp2", "vllm"):
        assert part in result.stdout


def test_without_a_method():
    result = run(*SMALL, "algorithm.adv_estimator=grpo")
    assert result.exit_code == 0
    assert "method none, recipe none, trainer sync" in result.stdout


def test_print_is_the_resolved_configuration():
    result = run("--print", *PGPO, "trainer.project_name=a", "trainer.experiment_name=b")
    assert result.exit_code == 0
    printed = yaml.safe_load(result.stdout.partition("\n")[2])
    assert printed["perception"]["methods"] == ["pgpo"]
    assert printed["trainer"]["default_local_dir"] == "checkpoints/a/b"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["perception.pgpo.threshold=2"], "perception.pgpo.threshold=2: write a value between 0 and 1"),
        (["trainer.v1.trainer_mode=sync"], "trainer.v1.trainer_mode=sync: this trainer ignores the section; write"),
        (
            ["trainer.v1.trainer_mode=perception_snyc"],
            "trainer.v1.trainer_mode=perception_snyc: verl knows no such trainer; write perception_sync or perception_",
        ),
        (["trainer.totl_epochs=3"], "trainer.totl_epochs=3: no such key; did you mean 'total_epochs'?"),
        (["actor_rollout_ref.rollout.name=???"], "actor_rollout_ref.rollout.name=???: verl has no default; write"),
        (["data.train_batch_size=2"], "verl refuses it: train_batch_size (2) must be >= actor.ppo_mini_batch_size (4)"),
        (["actor_rollout_ref.actor.loss_agg_mode=max"], "Invalid loss_agg_mode: max"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(overrides, line):
    result = run(*PGPO, *overrides)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert [line in printed for printed in result.stderr.splitlines() if printed.startswith("Error:")] == [True]


def test_an_estimator_that_does_not_act_is_refused_as_main_ppo_would():
    result = run(*PGPO, "algorithm.adv_estimator=vgpo")
    assert result.exit_code == 1
    assert "algorithm.adv_estimator=vgpo: write pgpo or perception, or leave this key alone" in result.stderr


# The default estimator needs a critic, which has no model here; the mistake has to be told before that.
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.v1.trainer_mode=snyc", "verl knows no such trainer; write one of colocate_async"),
        ("trainer.v1.trainer_mode=perception_sync", "add +perception=<method>, or write sync"),
        ("algorithm.adv_estimator=fooo", "verl knows no such estimator; write one of gae"),
        ("algorithm.adv_estimator=tor", "nothing has measured what it weights by; add +perception=tor, or call"),
    ],
)
def test_a_mistake_without_a_method_is_one_line(override, line):
    result = run(*SMALL, override)
    assert (result.exit_code, result.stdout) == (1, "")
    errors = [printed for printed in result.stderr.splitlines() if printed.startswith("Error:")]
    assert [error.startswith(f"Error: {override}: {line}") for error in errors] == [True]


def test_a_trainer_of_ones_own_is_known(monkeypatch):
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY, PPOTrainer

    own = [*SMALL, "algorithm.adv_estimator=grpo", "trainer.v1.trainer_mode=own_sync"]
    perceptive = [*PGPO, "trainer.v1.trainer_mode=perception_own_sync"]
    assert [run(*overrides).exit_code for overrides in (own, perceptive)] == [1, 1]
    for name in ("own_sync", "perception_own_sync"):
        monkeypatch.setitem(TRAINER_REGISTRY, name, PPOTrainer)
    assert [run(*overrides).exit_code for overrides in (own, perceptive)] == [0, 0]


def test_the_program_itself():
    """In a process of its own, without the CPU platform in the environment."""
    environment = {name: value for name, value in os.environ.items() if name != "VERL_PLATFORM"}
    command = [sys.executable, "-m", "verl_ext.cli", "validate", *PGPO, "perception.pgpo.treshold=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "validate: loading verl ..."
    assert done.stderr.splitlines()[-1].startswith("Error: perception.pgpo.treshold=1: no such key; did you mean 'thr")
    assert "Traceback" not in done.stderr


def test_choices_name_the_recipe():
    assert compose_with_choices(["+perception=papo_g"])[1]["recipe"] == "grpo_kl"
    assert compose_with_choices(["+perception=papo_g", "recipe=dapo"])[1]["recipe"] == "dapo"


def test_hydra_is_left_as_it_was():
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().is_initialized()
    assert "hydra" not in compose([])
    assert GlobalHydra.instance().is_initialized() == before


def test_an_unknown_method_lists_the_known_ones():
    error = mistake(["+perception=pgop"])
    assert (error.key, error.value) == ("+perception", "pgop")
    assert "pgpo" in error.remedy
    assert "papo_g" in error.remedy


def test_an_unknown_key_of_an_unknown_section():
    error = mistake(["trainers.nnodes=1"])
    assert (error.key, error.value) == ("trainers.nnodes", "1")
    assert "Could not override" in error.remedy


def test_two_unknown_keys_name_one_of_them():
    assert mistake(["trainer.a=1", "trainer.b=1"]).key in {"trainer.a", "trainer.b"}


def test_an_addition_that_exists():
    error = mistake(["+trainer.nnodes=1"])
    assert (error.key, error.value) == ("+trainer.nnodes", "1")
    assert "already at 'trainer.nnodes'" in error.remedy


def test_an_override_that_cannot_be_read():
    error = mistake(["data.val_files=[a,b"])
    assert (error.key, error.value) == ("data.val_files", "[a,b")


def test_an_unknown_configuration(tmp_path):
    assert mistake([], config_path=str(tmp_path), config_name="absent").key == "--config-name"
    assert mistake([], config_path=str(tmp_path / "absent")).key == "--config-path"
    assert "absolute" in mistake([], config_path="configs").remedy


def test_a_configuration_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "defaults: [ppo_trainer, /perception: papo_d, _self_]\n"
        "hydra: {searchpath: ['pkg://verl.trainer.config']}\n"
        "data: {train_batch_size: 7}\n"
    )
    config = compose(["trainer.nnodes=3"], config_path=str(tmp_path), config_name="mine")
    assert (config.data.train_batch_size, config.trainer.nnodes) == (7, 3)
    assert OmegaConf.to_container(config.perception.methods) == ["papo"]
