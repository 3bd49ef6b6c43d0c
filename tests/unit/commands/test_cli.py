# SPDX-License-Identifier: Apache-2.0
"""What all commands of verl-ext have in common."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from verl_ext.cli import COMMANDS, main


def leaves(group, path=()):
    """(words, command) of every command that does something."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


LEAVES = dict(leaves(main))


def test_all_of_them_are_listed():
    assert {words[0] for words in LEAVES} == set(COMMANDS)
    listed = CliRunner().invoke(main, ["--help"]).output
    assert all(name in listed for name in COMMANDS)


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_help_has_an_example_and_a_word_on_every_option(words):
    shown = CliRunner().invoke(main, [*words, "--help"])
    assert shown.exit_code == 0
    _, _, rest = shown.output.partition("\n\n")
    assert f"verl-ext {' '.join(words)}" in rest, shown.output
    silent = [option.name for option in LEAVES[words].params if isinstance(option, click.Option) and not option.help]
    assert silent == []


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_an_unknown_option_is_refused(words):
    refused = CliRunner().invoke(main, [*words, "--no-such-option"])
    assert refused.exit_code != 0
    assert "no-such-option" in refused.output
    assert "Traceback" not in refused.output


def test_an_unknown_command_is_refused():
    refused = CliRunner().invoke(main, ["docter"])
    assert refused.exit_code == 2
    assert "docter" in refused.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["data", "easy-vqa", "--rl-fraction", "2"], "rl_fraction=2.0: must lie between 0 and 1"),
        (["data", "folder", "."], "metadata.jsonl"),
        (["report", "no/such/run"], "no/such/run"),
        (["validate", "+perception=pgpo", "perception.pgpo.treshold=1"], "did you mean 'threshold'?"),
        (["validate", "+perception=pgp"], "perception=pgp"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(arguments, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1, refused.output
    (line,) = [line for line in refused.output.splitlines() if line.startswith("Error: ")]
    assert reason in line
    assert refused.output.splitlines()[-1] == line


@pytest.mark.parametrize("arguments", [["data", "easy-vqa", "--val-size", "1"]], ids=" ".join)
def test_an_output_that_cannot_be_written_is_one_line(arguments, tmp_path):
    (tmp_path / "file").write_text("")
    refused = CliRunner().invoke(main, [*arguments, "--output-dir", str(tmp_path / "file" / "folder")])
    assert refused.exit_code == 1
    line = refused.output.splitlines()[-1]
    assert line.startswith("Error: ")
    assert "Not a directory" in line
    assert str(tmp_path / "file" / "folder") in line


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m verl_ext.cli --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Error" not in done.stderr


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = "import sys; from verl_ext.cli import main; main(standalone_mode=False); print(sorted(sys.modules))"
    for words in ([], *map(list, LEAVES)):
        done = subprocess.run([sys.executable, "-c", code, *words, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        loaded = set(done.stdout.splitlines()[-1].strip("[]").replace("'", "").split(", "))
        assert not loaded & {"torch", "verl", "ray", "transformers", "matplotlib", "plotly"}, words
