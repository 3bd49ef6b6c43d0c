# SPDX-License-Identifier: Apache-2.0
"""Every command in the pages is one that works: run dry, parsed by its own parser, or composed and validated.

Commands of main_ppo are composed in test_docs.py, those of Slurm in test_launch_scripts.py; here are all others,
and the variables before any of them.
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
from verl_ext.configuration.compose import compose
from verl_ext.configuration.validation import validate

ROOT = Path(__file__).parents[3]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))])
PAGES += [ROOT / folder / "README.md" for folder in ("examples", "benchmarks")]
FENCED = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
# Programs that are not ours and that need a network or another machine.
FOREIGN = (
    ["mkdir", "-p"],
    ["pip", "install"],
    ["uv"],
    ["hf", "download"],
    ["python", "-m", "venv"],
    ["python3.12", "-m", "venv"],
    ["source"],
    [".venv/bin/ruff"],
    [".venv/bin/mkdocs"],
)
ELSEWHERE = (["python", "-m", "verl.trainer.main_ppo"], ["sbatch"])
# What verl, torch and flash-attn read.
VARIABLES = {"VERL_FILE_LOGGER_PATH", "OMP_NUM_THREADS", "FLASH_ATTENTION_FORCE_BUILD"}


def lines(page):
    for block in FENCED.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            _, command = parted(words)
            # A block may show overrides alone, or set a variable for the lines that follow.
            if command and not re.match(r"\+{0,2}[a-z_]+(\.\w+)+=", command[0]):
                yield tuple(word for word in words if "..." not in word)


def parted(words):
    """The variables that a line sets for its command, and the command."""
    count = next((at for at, word in enumerate(words) if not ASSIGNMENT.fullmatch(word)), len(words))
    return dict(word.split("=", 1) for word in words[:count]), tuple(words[count:])


LINES = sorted({line for page in PAGES for line in lines(page)})


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


def unknown(command, variables, folder):
    pytest.fail(f"nothing here knows how to check {' '.join(command)}")


def check_command_line(command, variables, folder):
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


def script_of(command):
    """The path of a shell script from the repository's root, and its arguments; None for another program."""
    path, *arguments = command[1:] if command[0] == "bash" else command
    return (path, arguments) if path.endswith(".sh") else None


def unread(line):
    """Variables before a command that nothing reads."""
    variables, command = parted(line)
    script = script_of(command)
    if script is None:
        return set(variables) - VARIABLES
    sources = (ROOT / "examples").rglob("*.sh") if script[0].startswith("examples/") else [ROOT / script[0]]
    return set(variables) - set(re.findall(r"\$\{([A-Z_]+):?-", "".join(path.read_text() for path in sources)))


def check_script(command, variables, folder):
    script, arguments = script_of(command)
    path = ROOT / script
    assert path.exists()
    subprocess.run(["bash", "-n", path], check=True)
    if script.startswith("examples/"):
        validated(output(path, arguments, {**variables, "DRY_RUN": "print"}, ROOT).splitlines())
    elif script == "scripts/quickstart.sh":
        validated([*quickstart().OVERRIDES, *arguments])
    elif script == "scripts/evaluate.sh":
        check_evaluation(path, arguments or ["run/global_step_1"], variables, folder)


def check_evaluation(path, arguments, variables, folder):
    """Its commands for a step that has what tells its kind, and no weights."""
    (folder / arguments[0] / "actor").mkdir(parents=True)
    (folder / arguments[0] / "actor/fsdp_config.json").touch()
    commands = [
        shlex.split(line) for line in output(path, arguments, {**variables, "DRY_RUN": "1"}, folder).splitlines()
    ]
    assert [words[2] for words in commands if words[1] == "-m"] == ["verl.model_merger"] + 9 * ["lmms_eval"]
    told = {word for words in commands for word in words}
    assert told >= {value for name, value in variables.items() if name != "DRY_RUN"}


def output(path, arguments, variables, folder):
    """What a script prints when it is called in a folder with some variables."""
    environment = {**os.environ, **variables}
    command = ["bash", path, *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def validated(overrides):
    config = compose(overrides)
    if "perception" in config:
        validate(config)


def check_benchmark(command, variables, folder):
    source = (ROOT / command[1]).read_text() + (ROOT / "benchmarks" / "actors.py").read_text()
    for word in command[2:]:
        assert not word.startswith("--") or f'"{word}"' in source, word


def test_the_pages_have_commands():
    kinds = {kind_of(parted(line)[1]) for line in LINES}
    assert kinds >= {check_command_line, check_script, check_benchmark}
    assert len(LINES) > 40


@pytest.mark.parametrize("line", [line for line in LINES if kind_of(parted(line)[1])], ids=" ".join)
def test_command(line, tmp_path):
    variables, command = parted(line)
    kind_of(command)(command, variables, tmp_path)


@pytest.mark.parametrize("line", [line for line in LINES if parted(line)[0]], ids=" ".join)
def test_variables_are_read_by_the_command(line):
    assert unread(line) == set()


@pytest.mark.parametrize(
    "command",
    [
        "NODES=2 NGPUS=4 bash examples/papo_trainer/run_qwen2_5_vl_7b_fsdp.sh",
        "NODES=2 bash scripts/evaluate.sh a",
        "NODES=2 python -m verl.trainer.main_ppo",
    ],
)
def test_a_misspelt_variable_is_seen(command):
    assert unread(command.split()) == {"NODES"}
