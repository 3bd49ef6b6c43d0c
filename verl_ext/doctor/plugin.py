# SPDX-License-Identifier: Apache-2.0
"""Does a fresh process that imports verl get this package's plug-in, and its trainers?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from verl_ext.doctor.checks import Check, failure, ok
from verl_ext.doctor.plugin_probe import PLUGIN
from verl_ext.doctor.subject import Subject
from verl_ext.doctor.versions import INSTALL

GROUP = "verl.plugins"
POLICY = "VERL_USE_EXTERNAL_PLUGINS"


def plugin_checks(subject: Subject) -> Iterator[Check]:
    """The entry point, and what importing verl made of it."""
    announced = [entry.name for entry in entry_points(group=GROUP) if entry.value == PLUGIN]
    if not announced:
        yield failure("entry point", f"no installed package announces {PLUGIN} in the group {GROUP}", INSTALL)
    assert subject.probe is not None
    yield _loaded(subject.probe.result(), announced)


def _loaded(found: dict[str, Any], announced: list[str]) -> Check:
    from verl_ext.configuration.validation import TRAINER_MODES

    missing = sorted(set(TRAINER_MODES) - set(found["trainers"]))
    if found["verl"]:
        return failure("plug-in", f"`import verl` fails: {found['verl']}", "repair what it names")
    if found["errors"]:
        return failure("plug-in", f"verl hides that it failed: {'; '.join(found['errors'])}", "repair what it names")
    if not found["loaded"]:
        return failure("plug-in", "`import verl` did not load it", _why_not(announced))
    if found["verls_trainers"]:
        return failure("plug-in", f"verl's trainers fail: {found['verls_trainers']}", "repair it")
    if missing:
        return failure("plug-in", f"verl does not know the trainers {', '.join(missing)}", INSTALL)
    return ok("plug-in", f"`import verl` loads it; trainers {', '.join(TRAINER_MODES)}")


def _why_not(announced: list[str]) -> str:
    policy = os.environ.get(POLICY, "auto")
    if announced and policy.strip().lower() != "auto":
        return f"{POLICY}={policy} keeps it out; unset it, or write {POLICY}={announced[0]}"
    return INSTALL
