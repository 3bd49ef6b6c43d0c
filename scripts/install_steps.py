# SPDX-License-Identifier: Apache-2.0
"""The steps of an installation, read from the page that tells them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

FENCED = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
# Commands that install nothing.
OTHERS = (["python3.12", "-m", "venv"], ["uv", "venv"], ["source"])


@dataclass(frozen=True)
class Step:
    """One `pip install`.

    Args:
        command: As the page has it.
        requirements: What it asks for, in the order of the command.
        isolated: Whether pip builds a source in an environment of its own, where nothing of this one can be imported.
        dependencies: Whether it also installs what the requirements require.
    """

    command: str
    requirements: tuple[str, ...]
    isolated: bool = True
    dependencies: bool = True


def steps_of(page: str, heading: str) -> list[Step]:
    """The steps of a section, in its order.

    Args:
        page: Markdown.
        heading: That of the section.

    Raises:
        ValueError: there is no such section, nothing is installed in it, or a command in it is not understood.
    """
    lines = [" ".join(line.split()) for block in FENCED.findall(section(page, heading)) for line in joined(block)]
    steps = [step for line in lines if (step := step_of(line))]
    if not steps:
        raise ValueError(f"the section {heading!r} has no `pip install` in a block of bash")
    return steps


def section(page: str, heading: str) -> str:
    """The text under a heading of the second level.

    Raises:
        ValueError: there is no such heading.
    """
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"there is no section {heading!r}")
    return found[1]


def joined(block: str) -> Iterator[str]:
    """The commands of a block, each on one line."""
    for line in block.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


def step_of(line: str) -> Step | None:
    """The step that a command is; None if it installs nothing.

    Raises:
        ValueError: it is no command, or has no option, that is known here.
    """
    words = shlex.split(line, comments=True)
    while words and ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    if any(words[: len(other)] == other for other in OTHERS):
        return None
    if words[:1] == ["uv"]:
        words = words[1:]
    if words[:2] != ["pip", "install"]:
        raise ValueError(f"{line!r} is neither `pip install` nor a command that installs nothing")
    options = {word for word in words[2:] if word.startswith("-")}
    if unknown := options - {"--no-build-isolation", "--no-deps"}:
        raise ValueError(f"{line!r}: nothing here knows what {', '.join(sorted(unknown))} does")
    return Step(
        command=line,
        requirements=tuple(word for word in words[2:] if word not in options),
        isolated="--no-build-isolation" not in options,
        dependencies="--no-deps" not in options,
    )
