# SPDX-License-Identifier: Apache-2.0
"""On what will it run? Asked of verl, which chooses its platform when it is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psutil

from verl_ext.doctor.checks import Check, ok, warning
from verl_ext.doctor.subject import Subject
from verl_ext.platforms.cpu.environment import ENVIRONMENT

GB = 1e9


def device_checks(_subject: Subject) -> Iterator[Check]:
    """The devices and their memory, and this machine's."""
    from verl.plugin.platform import get_platform

    platform = get_platform()
    if platform.device_name == "cpu":
        yield _cpu()
    elif platform.is_available():
        yield ok("device", _devices(platform))
    else:
        yield warning("device", "no accelerator in sight", f"for a run on the CPU, add +platform=cpu and {_export()}")
    memory = psutil.virtual_memory()
    yield ok(
        "host", f"{os.cpu_count()} cores, {memory.total / GB:.1f} GB of memory, {memory.available / GB:.1f} GB free"
    )


def _cpu() -> Check:
    found = "the CPU, because of VERL_PLATFORM=cpu"
    missing = [name for name in ENVIRONMENT if name not in os.environ]
    if missing:
        return warning("device", f"{found}; not set: {', '.join(missing)}", _export(*missing))
    return ok("device", found)


def _export(*names: str) -> str:
    """The command that sets the environment variables `names` of the CPU platform; all by default."""
    return "export " + " ".join(f"{name}={ENVIRONMENT[name]}" for name in names or ENVIRONMENT)


def _devices(platform: Any) -> str:
    described = [_described(platform.device_module, index) for index in range(platform.device_count())]
    return f"{len(described)} {platform.device_name} device(s): {'; '.join(described)}"


def _described(devices: Any, index: int) -> str:
    free, total = devices.mem_get_info(index)
    return f"{devices.get_device_name(index)}, {free / GB:.1f} of {total / GB:.1f} GB free"
