# SPDX-License-Identifier: Apache-2.0
"""What building a source distribution imports, read from its files, none of which is run; and whether it is there."""

from __future__ import annotations

import ast
import io
import sys
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email import message_from_string
from functools import cache

from install_resolution import Package
from install_steps import Step
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = ("setup.py", "pyproject.toml", "PKG-INFO")


@dataclass(frozen=True)
class Build:
    """What a package needs to be built, as canonical names.

    Args:
        declared: What it says that its build needs; pip installs that apart for a build in isolation.
        imported: What its `setup.py` imports, at whatever depth, beyond the standard library and its own files.
        runtime: What it needs once it is installed.
    """

    declared: frozenset[str]
    imported: frozenset[str]
    runtime: frozenset[str]


@cache
def build_of(url: str) -> Build:
    """How the source distribution at an address is built."""
    with urllib.request.urlopen(url, timeout=120) as answer:
        return read_build(answer.read())


def read_build(archive: bytes) -> Build:
    """How a source distribution (`.tar.gz`) is built."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        names = [tuple(name.split("/")) for name in files.getnames()]
        packed = {name.partition("/")[2]: files.extractfile(name) for name in files.getnames() if is_read(name)}
        texts = {name: file.read().decode() for name, file in packed.items() if file is not None}
    own = {parts[1].removesuffix(".py") for parts in names if len(parts) > 1}
    requires = message_from_string(texts["PKG-INFO"]).get_all("Requires-Dist") or []
    return Build(
        declared=frozenset(declared(texts.get("pyproject.toml", ""))),
        imported=frozenset(imported(texts.get("setup.py", ""), own)),
        runtime=frozenset(canonical(line) for line in requires if "extra ==" not in line),
    )


def is_read(name: str) -> bool:
    """Whether a file of an archive, which has one folder around all, is one of `FILES`."""
    return name.partition("/")[2] in FILES


def declared(pyproject: str) -> Iterator[str]:
    """The build requirements of a `pyproject.toml`; setuptools where none are given, as pip has it."""
    system = tomllib.loads(pyproject).get("build-system", {})
    return map(canonical, system.get("requires", ["setuptools"]))


def imported(setup: str, own: set[str]) -> Iterator[str]:
    """What a `setup.py` imports, at whatever depth, taking the name of a package for that of its distribution.

    Args:
        setup: Its text.
        own: Names that it can import because they lie beside it.
    """
    for node in ast.walk(ast.parse(setup)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            if top not in own and top not in sys.stdlib_module_names:
                yield canonicalize_name(top)


def canonical(requirement: str) -> str:
    """The canonical name in a requirement."""
    return canonicalize_name(Requirement(requirement).name)


def wrong_order(
    step: Step, name: str, build: Build, before: Mapping[str, Package], finally_there: Mapping[str, Package]
) -> Iterator[str]:
    """Why a step cannot build a package, or builds it for another environment than it will be in.

    Args:
        step: The step that brings it.
        name: The package.
        build: What its build needs.
        before: What the steps before have brought.
        finally_there: What all steps bring.
    """
    what = f"`{step.command}` builds {name} from source"
    if step.isolated:
        for missing in sorted(build.imported - build.declared):
            yield f"{what} where {missing} cannot be imported: install both before, {name} with --no-build-isolation"
        for other in sorted(build.declared & build.runtime):
            yield f"{what} for whatever {other} is newest: install both before, {name} with --no-build-isolation"
        return
    # pip is in every environment that a step can run in.
    for missing in sorted((build.imported | build.declared) - before.keys() - {"pip"}):
        yield f"{what}, which needs {missing}: install it in a step before"
    for other in sorted(build.runtime & before.keys()):
        if before[other] != finally_there[other]:
            yield (
                f"{what} for {other} {before[other].version}, which a later step replaces with "
                f"{finally_there[other].version}: install {other}=={finally_there[other].version} before"
            )
