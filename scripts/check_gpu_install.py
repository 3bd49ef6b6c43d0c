# SPDX-License-Identifier: Apache-2.0
"""Checks the steps of docs/installing.md for GPU machines on one without: what they bring, and in which order.

Another page to check may be given. One line on stderr for each thing that is wrong, and exit status 1 if there is any.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from install_resolution import PLATFORM, PYTHON, Package, resolved
from install_steps import Step, section, steps_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_builds import build_of, wrong_order

PAGE = Path(__file__).parents[1] / "docs/installing.md"
# Requirements of verl's that PyPI cannot meet: the first is another package there, the second lacks verl's version.
NOT_FROM_PYPI = "apex"
OTHER_VERSION = "megatron-bridge"


@dataclass(frozen=True)
class Recipe:
    """Steps that make one environment.

    Args:
        headings: The sections whose steps are followed one after the other.
        extras: Those of verl that the environment is for.
    """

    headings: tuple[str, ...]
    extras: tuple[str, ...]

    def __str__(self) -> str:
        return " + ".join(self.headings)


RECIPES = (
    Recipe(("FSDP and vLLM",), ("vllm", "fsdp")),
    Recipe(("The same with uv",), ("vllm", "fsdp")),
    Recipe(("FSDP and vLLM", "Megatron"), ("vllm", "fsdp", "megatron")),
)


def failures(steps: Sequence[Step], extras: Sequence[str]) -> Iterator[str]:
    """What is wrong with the steps of an environment for some of verl's extras."""
    yield from unpinned(steps)
    try:
        stages = [resolved(steps[:count]) for count in range(len(steps) + 1)]
    except ValueError as error:
        yield f"the steps do not resolve together: {error}"
        return
    yield from other_than_verls(stages[-1], extras)
    for step, before, after in zip(steps, stages[:-1], stages[1:], strict=True):
        for name in new_sources(before, after):
            yield from wrong_source(step, name, before, after, stages[-1])


def wrong_source(
    step: Step,
    name: str,
    before: Mapping[str, Package],
    after: Mapping[str, Package],
    finally_there: Mapping[str, Package],
) -> Iterator[str]:
    """Why a step cannot build a package, or builds one that does not stay; see :func:`wrong_order`."""
    try:
        build = build_of(after[name].source or "")
    except OSError as error:
        yield f"the source of {name} {after[name].version} cannot be read: {error}"
        return
    yield from wrong_order(step, name, build, before, finally_there)
    if after[name] != (last := finally_there[name]):
        yield f"`{step.command}` builds {name} {after[name].version}, and a later step {last.version}"


def unpinned(steps: Sequence[Step]) -> Iterator[str]:
    """What is built for this environment, or taken without its dependencies, without a version that fits the rest."""
    for step in steps:
        if step.isolated and step.dependencies:
            continue
        for requirement in map(Requirement, step.requirements):
            if not any(part.operator == "==" for part in requirement.specifier):
                yield f"`{step.command}` names no version of {requirement.name}: write {requirement.name}==..."


def other_than_verls(found: Mapping[str, Package], extras: Sequence[str]) -> Iterator[str]:
    """What verl's extras ask for and the environment does not hold."""
    installed = importlib.metadata.version("verl")
    if "verl" not in found or found["verl"].version != installed:
        yield (
            f"the steps bring verl {found['verl'].version if 'verl' in found else '(none)'} and its pins are read from "
            f"verl {installed}: write that version into the extra `gpu` of pyproject.toml, or install the other one"
        )
    if NOT_FROM_PYPI in found:
        yield f"the steps install {NOT_FROM_PYPI} from PyPI, where another package has that name: leave it out"
    for requirement in requirements_of_verl(extras):
        name = canonicalize_name(requirement.name)
        if name == NOT_FROM_PYPI:
            continue
        if name not in found:
            yield f"verl asks for {requirement.name}, which no step installs"
        elif found[name].version not in requirement.specifier and name != OTHER_VERSION:
            yield f"verl asks for {requirement.name}{requirement.specifier}, and the steps bring {found[name].version}"


def requirements_of_verl(extras: Sequence[str]) -> Iterator[Requirement]:
    """What the installed verl requires under some of its extras, and under those that they name."""
    for requirement in map(Requirement, importlib.metadata.requires("verl") or []):
        place = {"python_version": PYTHON}
        if requirement.marker and not any(requirement.marker.evaluate({**place, "extra": extra}) for extra in extras):
            continue
        if requirement.name == "verl":
            yield from (inner for inner in requirements_of_verl(tuple(requirement.extras)) if inner.marker)
        else:
            yield requirement


def new_sources(before: Mapping[str, Package], after: Mapping[str, Package]) -> list[str]:
    """Packages without a wheel that a step brings."""
    return [name for name, package in after.items() if package.source and package != before.get(name)]


def undocumented(page: str) -> Iterator[str]:
    """What deviates from verl and the page does not name."""
    for name in (NOT_FROM_PYPI, OTHER_VERSION):
        if f"`{name}`" not in section(page, "Megatron"):
            yield f"the section 'Megatron' does not say what is done about `{name}`"


def summary(recipe: Recipe, steps: Sequence[Step]) -> str:
    """What an environment holds, in two lines."""
    found = resolved(steps)
    pinned = sorted(
        f"{requirement.name} {found[canonicalize_name(requirement.name)].version}"
        for requirement in requirements_of_verl(recipe.extras)
        if requirement.name not in (NOT_FROM_PYPI, OTHER_VERSION)
        and any(part.operator == "==" for part in requirement.specifier)
    )
    sources = sorted(f"{name} {package.version}" for name, package in found.items() if package.source)
    return (
        f"{recipe}: {len(steps)} steps bring {len(found)} packages for Python {PYTHON} on {PLATFORM}\n"
        f"  pinned by verl: {', '.join(dict.fromkeys(pinned))}\n  from source: {', '.join(sources)}"
    )


def main(path: Path = PAGE) -> int:
    """Check every recipe of a page; the exit status."""
    page = path.read_text()
    found = list(undocumented(page))
    for recipe in RECIPES:
        try:
            steps = [step for heading in recipe.headings for step in steps_of(page, heading)]
        except ValueError as error:
            found.append(f"{recipe}: {error}")
            continue
        wrong = [f"{recipe}: {line}" for line in dict.fromkeys(failures(steps, recipe.extras))]
        if not wrong:
            print(summary(recipe, steps))
        found += wrong
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
