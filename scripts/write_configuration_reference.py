# SPDX-License-Identifier: Apache-2.0
"""Write docs/configuration.md: every key under `perception`, from the typed configurations and the groups' comments.

Types, bounds and choices come from the dataclasses that check a configuration, defaults and words from the YAML files.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from verl_ext.ablation.spec import AblationSpec
from verl_ext.configuration.section import RunOptions
from verl_ext.methods.available import available_methods

ROOT = Path(__file__).resolve().parents[1]
GROUPS = ROOT / "verl_ext" / "config" / "perception"
PAGE = ROOT / "docs" / "configuration.md"
# The group that describes each method; the others are its variants.
GROUP_OF = {"papo": "papo_g", "pepo": "pepo_g"}
UNBOUNDED = 1e6
HEAD = """# Configuration

Every key under `perception`, with the values that are accepted. `+perception=<group>` sets them; each can be
overridden, and a value that does not fit stops the run before Ray starts, with the key, the value and what to write
instead.

This page is written by `scripts/write_configuration_reference.py` from the typed configurations.
"""
GROUPS_HEAD = """
## Groups

What `+perception=<group>` chooses. Recipes are described with the [methods](algo/README.md#recipes).

| group | what |
| --- | --- |
"""
TABLE = "\n| key | type | default | accepted | meaning |\n| --- | --- | --- | --- | --- |\n"


def comments(text: str) -> dict[tuple[str, ...], str]:
    """What is said about each key of a YAML file, by the key's path: the comment above it or above its paragraph."""
    found: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        said = " ".join(line.strip().lstrip("# ") for line in lines if line.strip().startswith("#"))
        for match in filter(None, (re.match(r"( *)([\w.]+):", line) for line in lines)):
            path = [(indent, name) for indent, name in path if indent < len(match[1])]
            path.append((len(match[1]), match[2]))
            found[tuple(name for _, name in path)] = said
    return found


def heading(text: str) -> str:
    """What a group's file says about itself: the comments at its top, but for Hydra's directive."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line.lstrip("# "))
    return " ".join(lines)


def kind(field: dataclasses.Field[Any]) -> str:
    """The type as a reader of YAML would say it."""
    return str(field.type).replace("None", "null").replace(" | ", " or ")


def accepted(field: dataclasses.Field[Any]) -> str:
    """Bounds or choices."""
    if "choices" in field.metadata:
        return ", ".join(f"`{value}`" for value in field.metadata["choices"])
    if "bounds" in field.metadata:
        low, high = field.metadata["bounds"]
        return f"{low:g} to {high:g}" if high < UNBOUNDED else f"{low:g} or more"
    return ""


def literal(value: Any) -> str:
    """A value as it stands in YAML."""
    return "null" if value is None else str(value)


def rows(cls: type, prefix: tuple[str, ...], group: str) -> Iterator[str]:
    """One table row a field of `cls`, whose keys stand under `prefix` in the group's file."""
    text = (GROUPS / f"{group}.yaml").read_text()
    words, values = comments(text), yaml.safe_load(text)
    for name in prefix:
        values = values[name]
    for field in dataclasses.fields(cls):
        meaning = words[(*prefix, field.name)]
        key = ".".join((*prefix, field.name))
        yield f"| `{key}` | {kind(field)} | `{literal(values[field.name])}` | {accepted(field)} | {meaning} |\n"


def groups() -> Iterator[str]:
    """One table row a group."""
    for path in sorted(GROUPS.glob("[!_]*.yaml")):
        yield f"| `{path.stem}` | {heading(path.read_text())} |\n"


def page() -> str:
    """The whole page."""
    parts = [HEAD, GROUPS_HEAD, *groups()]
    parts += ["\n## All methods\n", TABLE, *rows(RunOptions, ("perception",), "_base")]
    parts += [
        "\n## How the image is taken away\n",
        "\nEach view under `perception.views.<name>` has the same keys.\n",
        TABLE,
    ]
    parts += rows(AblationSpec, ("perception", "ablation"), "_base")
    for name, cls in sorted(available_methods().items()):
        parts += [
            f"\n## {name}\n\nMore: [{name}](algo/{name}.md). Defaults of `+perception={GROUP_OF.get(name, name)}`.\n"
        ]
        parts += [TABLE, *rows(cls, ("perception", name), GROUP_OF.get(name, name))]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}\n")
