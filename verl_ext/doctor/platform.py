# SPDX-License-Identifier: Apache-2.0
"""Does the configuration ask for the devices that are here?"""

from __future__ import annotations

from collections.abc import Iterator

from verl_ext.doctor.checks import Check, failure, ok, warning
from verl_ext.doctor.subject import Subject


def platform_checks(subject: Subject) -> Iterator[Check]:
    """`trainer.device` and the number of ranks against verl's platform."""
    from verl.plugin.platform import get_platform

    platform, device = get_platform(), str(subject.get("trainer.device"))
    asked = int(subject.get("trainer.nnodes", 1)) * int(subject.get("trainer.n_gpus_per_node", 1))
    if device == "cpu" and platform.device_name != "cpu":
        yield failure("platform", "trainer.device=cpu, but verl does not know the CPU", "export VERL_PLATFORM=cpu")
    elif platform.device_name == "cpu" and device != "cpu":
        yield failure("platform", f"VERL_PLATFORM=cpu, but trainer.device={device}", "add +platform=cpu")
    elif device != "cpu" and platform.device_count() < int(subject.get("trainer.n_gpus_per_node", 1)):
        found = f"trainer.n_gpus_per_node={subject.get('trainer.n_gpus_per_node')}, here are {platform.device_count()}"
        yield warning("platform", found, "run it on such a machine, or write fewer")
    else:
        yield ok("platform", f"{asked} rank(s) on {platform.device_name}")
