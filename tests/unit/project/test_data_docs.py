# SPDX-License-Identifier: Apache-2.0
"""`docs/data.md` against the code: commands, options, the table of data sets."""

import re
import shlex
from pathlib import Path

import pytest

from verl_ext.commands.data import command as data
from verl_ext.data.answers import ANSWER_TYPES
from verl_ext.data.parquet import EXTRA_INFO
from verl_ext.data.sets import hub_data_sets

PAGE = (Path(__file__).parents[3] / "docs/data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = sorted({line for block in BLOCKS for line in block.splitlines() if line.startswith("verl-ext data ")})


@pytest.fixture
def named_paths(tmp_path, monkeypatch):
    """What the commands of the page name exists."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "geometry3k", "ViRL39K", "data/geometry3k", "data/mmk12"):
        Path(folder).mkdir(parents=True)
    files = ("questions.jsonl", "held_out.csv", "ViRL39K/39Krelease.parquet")
    for file in (*files, "data/geometry3k/test.parquet", "data/mmk12/test.parquet"):
        Path(file).touch()


@pytest.mark.usefixtures("named_paths")
@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line):
    _, _, name, *arguments = shlex.split(line)
    data.commands[name].make_context(name, arguments)


def test_every_command_has_an_example():
    assert {line.split()[2] for line in COMMANDS} == set(data.commands)


def test_every_option_is_in_the_table():
    known = {option for name in data.commands for param in data.commands[name].params for option in param.opts}
    own = {option for param in data.commands["easy-vqa"].params for option in param.opts}
    described = set(re.findall(r"--[a-z][a-z-]*", PAGE))
    assert (known - own) | {"--val-size", "--seed"} <= described | {"path"}
    assert described <= known | {"--repo-type", "--local-dir"}


def test_the_table_of_data_sets():
    for data_set in hub_data_sets():
        for position, repository in enumerate(data_set.repositories):
            name = data_set.name if not position else f"{data_set.name} --repo {repository.id}"
            assert f"| `{name}` | `{repository.id}` | `{repository.revision}` |" in PAGE


def test_what_a_row_holds():
    assert all(f"`{name}`" in PAGE for name in (*EXTRA_INFO, *ANSWER_TYPES))
