# SPDX-License-Identifier: Apache-2.0
"""Every command in the pages is one that works: run dry, parsed by its own parser, or composed and validated.

Commands of main_ppo are composed in test_docs.py, those of Slurm in test_launch_scripts.py; here are all others.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from support.quickstart import quickstart

from verl_ext.cli import main
from verl_ext.integration.compose import compose
from verl_ext.integration.validation import validate

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))])
PAGES += [ROOT / folder / "README.md" for folder in ("examples", "benchmarks")]
FENCED = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
# Programs that are not ours and that need a network or another machine.
FOREIGN = (["pip", "install"], ["hf", "download"], ["python", "-m", "venv"], [".venv/bin/ruff"], [".venv/bin/mkdocs"])
ELSEWHERE = (["python", "-m", "verl.trainer.main_ppo"], ["sbatch"])


def lines(page):
    for block in FENCED.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and ASSIGNMENT.fullmatch(words[0]):
                words = words[1:]
            # A block may show overrides alone.
            if words and not re.match(r"\+{0,2}[a-z_]+(\.\w+)+=", words[0]):
                yield tuple(word for word in words if "..." not in word)


COMMANDS = sorted({command for page in PAGES for command in lines(page)})


def starts(command, heads):
    return any(list(command[: len(head)]) == head for head in heads)


def kind_of(command):
    if starts(command, FOREIGN) or starts(command, ELSEWHERE):
        return None
    if command[0] == "verl-ext":
        return check_command_line
    if command[0] == "bash" or command[0].endswith(".sh"):
        return check_script
    if command[0].endswith("python") and command[1].endswith(".py"):
        return check_benchmark
    return unknown


def unknown(command):
    pytest.fail(f"nothing here knows how to check {' '.join(command)}")


def check_command_line(command):
    """click accepts the words; files that a reader has and we have not may be missing."""
    words, group, context = list(command[1:]), main, click.Context(main, info_name="verl-ext")
    while isinstance(group, click.Group):
        name = words.pop(0)
        group = group.get_command(context, name)
        assert group is not None, f"no command {name}"
        context = click.Context(group, parent=context, info_name=name)
    refused = refusal(group, context, words)
    assert refused is None or "does not exist" in refused
    if context.info_name in ("doctor", "validate") and words:
        validate(compose([word for word in words if "=" in word]))


def refusal(command, context, words):
    try:
        command.make_context(context.info_name, words, parent=context.parent)
    except click.UsageError as error:
        return str(error)
    return None


def check_script(command):
    script, *arguments = command[1:] if command[0] == "bash" else command
    path = ROOT / script
    assert path.exists()
    subprocess.run(["bash", "-n", path], check=True)
    if script.startswith("examples/"):
        environment = {**os.environ, "DRY_RUN": "print"}
        shown = subprocess.run(["bash", path, *arguments], env=environment, capture_output=True, text=True, check=True)
        validated(shown.stdout.splitlines())
    elif script == "scripts/quickstart.sh":
        validated([*quickstart().OVERRIDES, *arguments])


def validated(overrides):
    config = compose(overrides)
    if "perception" in config:
        validate(config)


def check_benchmark(command):
    source = (ROOT / command[1]).read_text() + (ROOT / "benchmarks" / "actors.py").read_text()
    for word in command[2:]:
        assert not word.startswith("--") or f'"{word}"' in source, word


def test_the_pages_have_commands():
    kinds = {kind_of(command) for command in COMMANDS}
    assert kinds >= {check_command_line, check_script, check_benchmark}
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("command", [command for command in COMMANDS if kind_of(command)], ids=" ".join)
def test_command(command):
    kind_of(command)(command)
