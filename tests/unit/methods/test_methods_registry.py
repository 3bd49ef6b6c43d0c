# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from verl_ext.methods import registry
from verl_ext.methods.available import available_methods
from verl_ext.methods.base import Method
from verl_ext.methods.papo import PAPO
from verl_ext.methods.pgpo import PGPO
from verl_ext.methods.registry import register_method

THEIRS = """
from dataclasses import dataclass
from verl_ext.methods.base import Method, bounded
from verl_ext.methods.registry import register_method
from verl_ext.signals.request import AblatedLogProb

@register_method
@dataclass(frozen=True)
class Theirs(Method):
    name = "theirs"
    strength: float = bounded(1.5, 0.0, 2.0)

    def signals(self):
        return frozenset({AblatedLogProb()})
"""
PARSE = """
import json, sys
from verl_ext.errors import ConfigurationError
from verl_ext.configuration.section import parse
for section in json.loads(sys.argv[1]):
    try:
        perception = parse(section)
        print(perception.methods, sorted(signal.field for signal in perception.signals))
    except ConfigurationError as error:
        print(error)
"""


@pytest.fixture
def names():
    """Names that a test registers; they are forgotten afterwards."""
    used = []
    yield used
    for name in used:
        registry._METHODS.pop(name, None)


def test_our_methods():
    methods = available_methods()
    assert (methods["pgpo"], methods["papo"]) == (PGPO, PAPO)
    assert list(methods) == sorted(methods)
    assert {name: cls.name for name, cls in methods.items()} == {name: name for name in methods}


def test_a_registered_method_is_available(names):
    names.append("first")

    @register_method
    class First(Method):
        name = "first"

    assert available_methods()["first"] is First
    assert register_method(First) is First


def test_a_name_is_taken_once(names):
    names.append("taken")

    @register_method
    class Holder(Method):
        name = "taken"

    class Other(Method):
        name = "taken"

    with pytest.raises(ValueError, match=r"method name 'taken' is taken by .*Holder"):
        register_method(Other)
    assert available_methods()["taken"] is Holder


def test_another_package_cannot_take_a_name_by_the_same_class_name():
    @dataclass(frozen=True)
    class Impostor(Method):
        name = "pgpo"

    Impostor.__qualname__ = "PGPO"
    with pytest.raises(ValueError, match=r"method name 'pgpo' is taken by verl_ext\.methods\.pgpo\.PGPO"):
        register_method(Impostor)


def test_a_reloaded_module_keeps_its_methods():
    @dataclass(frozen=True)
    class Again(Method):
        name = "pgpo"

    Again.__module__, Again.__qualname__ = PGPO.__module__, PGPO.__qualname__
    register_method(Again)
    assert available_methods()["pgpo"] is PGPO


def test_a_method_of_another_package_through_its_entry_point(tmp_path):
    (tmp_path / "their_package.py").write_text(THEIRS)
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[verl_ext.methods]\ntheirs = their_package\n")
    sections = [
        {"methods": ["theirs", "pgpo"], "theirs": {"strength": 0.5}},
        {"methods": ["theirs"]},
        {"methods": ["theirs"], "theirs": {"strength": 3}},
        {"methods": ["theirs"], "theirs": {"strenght": 1}},
    ]
    command = [sys.executable, "-c", PARSE, json.dumps(sections)]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    both, alone, out_of_range, misspelt = done.stdout.splitlines()
    assert both.startswith("(Theirs(strength=0.5), PGPO(divergence='k3', ")
    assert alone == "(Theirs(strength=1.5),) ['ablated_log_prob']"
    assert out_of_range == "perception.theirs.strength=3: write a value between 0 and 2"
    assert misspelt == "perception.theirs.strenght=1: no such key; did you mean 'strength'?"
    assert "theirs" not in available_methods()
