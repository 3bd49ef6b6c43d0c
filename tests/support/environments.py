# SPDX-License-Identifier: Apache-2.0
"""Environments of a part of this one's packages, without downloading or copying them."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(roots):
    """The distributions of these requirements, and of all that they require, as far as they are installed.

    Args:
        roots: Such as "verl[vllm]".
    """
    found, seen, left = {}, set(), list(map(Requirement, roots))
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        left += [inner for inner in map(Requirement, found[name].requires or []) if asked(inner, requirement.extras)]
    return found


def asked(requirement, extras):
    """Whether a requirement of a package counts here, if these extras of the package are asked for."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ["", *extras])


def environment_of(distributions, folder):
    """A new environment that holds these distributions and pip, as links to the files of this one; its Python.

    A link may be removed or replaced, as pip does, and what it points to stays.
    """
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    # Before Python 3.12 a new environment has one of its own.
    subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools"], check=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    for package in distributions:
        for file in package.files or []:
            # Scripts and shared files lie outside, and start the other environment.
            if file.parts[0] != ".." and file.suffix != ".pyc":
                link(site_packages / file, package.locate_file(file))
    return python


def link(place, target):
    """A link, unless another package has the same file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(place):
        place.symlink_to(target)
