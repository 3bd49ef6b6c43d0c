# SPDX-License-Identifier: Apache-2.0
"""What a user sees of a mistake in the configuration: the real command stops at once, before Ray starts."""

import subprocess
import sys

import pytest
import yaml
from support import forked_command
from support.configuration import SMALL

CASES = {
    "group": ["+perception=pgop"],
    "key": ["+perception=pgpo", "+perception.pgpo.treshold=1"],
    "value": ["+perception=papo_g", "perception.papo.coef=-1"],
    "trainer": ["+perception=pgpo", "trainer.v1.trainer_mode=sync"],
    "file": ["+perception=pgpo", "data.train_files=/no/such/train.parquet"],
    "estimator": ["algorithm.adv_estimator=pgpo"],
    "other estimator": ["+perception=pgpo", "perception.methods=[tor,pgpo]", "algorithm.adv_estimator=vgpo"],
}
EXPECTED = {
    "key": "verl-ext: perception.pgpo.treshold=1: no such key; did you mean 'threshold'?",
    "trainer": "verl-ext: trainer.v1.trainer_mode=sync: this trainer ignores the section; write perception_sync",
    "value": "verl-ext: perception.papo.coef=-1: write a value between 0 and 1e+06",
    "estimator": "verl-ext: algorithm.adv_estimator=pgpo: nothing has measured what it weights by; "
    "add +perception=pgpo, or call the estimator with its signals",
    "other estimator": "verl-ext: algorithm.adv_estimator=vgpo: write tor or pgpo or perception, or leave this key "
    "alone; whose advantages are weighted is chosen by perception.base_estimator (now grpo)",
    "file": "verl-ext: data.train_files=/no/such/train.parquet: there is no such file; correct the path "
    "(`verl-ext data --help` lists what it can prepare)",
}


MODULE = "verl.trainer.main_ppo"


def anew(module, *overrides, folder):
    """In a new interpreter."""
    command = [sys.executable, "-m", module, *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)


def refused(overrides, folder, run=forked_command.run):
    done = run(MODULE, *SMALL, *overrides, f"hydra.run.dir={folder / 'hydra'}", folder=folder)
    assert done.returncode != 0
    assert "Started a local Ray instance" not in done.stdout + done.stderr
    return done


@pytest.mark.parametrize("case", EXPECTED)
def test_our_errors_are_one_line(case, tmp_path):
    done = refused(CASES[case], tmp_path, run=anew if case == "key" else forked_command.run)
    assert EXPECTED[case] in done.stderr.splitlines()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("group", "estimator"),
    [
        ("pgpo", "pgpo"),
        ("pepo_d", "pepo"),
        ("vgpo", "vgpo"),
        ("vppo_8b", "vppo"),
        ("tor", "tor"),
        ("papo_d", "perception"),
    ],
)
def test_verls_configuration_names_the_estimator(group, estimator, tmp_path):
    done = forked_command.run(MODULE, "--cfg", "job", f"+perception={group}", *SMALL, folder=tmp_path)
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["algorithm"]["adv_estimator"] == estimator


def test_an_unknown_method_lists_the_known_ones(tmp_path):
    done = refused(CASES["group"], tmp_path)
    assert "Could not find 'perception/pgop'" in done.stderr
    options = done.stderr.partition("Available options in 'perception':")[2].split()
    assert {"pgpo", "papo_g"} <= set(options)
