# SPDX-License-Identifier: Apache-2.0
"""All checks in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from verl_ext.doctor.checks import Check, guarded
from verl_ext.doctor.plugin_probe import Probe
from verl_ext.doctor.progress import Progress
from verl_ext.doctor.subject import CONFIG_NAME, Subject

INSTALLATION = "Installation"
CONFIGURATION = "Configuration"


@dataclass(frozen=True)
class Step:
    """A function that makes checks.

    Attributes:
        name: of the failure, should it raise.
        function: `module:name` in this package; it takes the subject and gives an iterable of checks.
        doing: what is said where it takes long.
    """

    name: str
    function: str
    doing: str


INSTALLATION_STEPS = (
    Step("versions", "versions:version_checks", "reading versions"),
    Step("conflicts", "conflicts:conflict_checks", "importing torch"),
    Step("device", "device:device_checks", "importing verl and asking it for its devices"),
    Step("verl's API", "api:api_checks", "comparing verl's API with what verl-ext uses"),
    Step("plug-in", "plugin:plugin_checks", "importing verl in a process of its own"),
)

CONFIGURATION_STEPS = (
    Step("composition", "configuration:composition", "composing the configuration"),
    Step("perception", "configuration:perception", "checking the perception section"),
    Step("verl's checks", "configuration:verls_checks", "running verl's own checks"),
    Step("trainer", "configuration:trainer", "building verl's trainer"),
    Step("platform", "platform:platform_checks", "comparing devices with the configuration"),
    Step("batches", "batches:batch_checks", "dividing batches"),
    Step("model", "model:model_checks", "loading the model's configuration and processor"),
    Step("attention", "attention:attention_checks", "looking for flash-attention"),
    Step("rollout", "rollout:rollout_checks", "reading the rollout engine's source"),
    Step("data", "data:data_checks", "reading the data files"),
    Step("reward", "reward:reward_checks", "calling the reward function"),
    Step("memory", "memory:memory_checks", "adding up memory"),
)


def diagnose(subject: Subject, progress: Progress) -> Iterator[tuple[str, list[Check]]]:
    """The checks of the installation, then those of the configuration if there is one; by section."""
    subject.probe = Probe()
    yield INSTALLATION, list(run_steps(INSTALLATION_STEPS, subject, progress))
    if subject.overrides or subject.config_path or subject.config_name != CONFIG_NAME:
        yield CONFIGURATION, list(configuration_checks(subject, progress))


def configuration_checks(subject: Subject, progress: Progress) -> Iterator[Check]:
    """The checks of the configuration alone; only the first where it does not compose."""
    yield from run_steps(CONFIGURATION_STEPS[:1], subject, progress)
    if subject.config is not None:
        yield from run_steps(CONFIGURATION_STEPS[1:], subject, progress)


def run_steps(steps: Iterable[Step], subject: Subject, progress: Progress) -> Iterator[Check]:
    """The checks of `steps`, one after another."""
    for step in steps:
        with progress.doing(step.doing):
            checks = guarded(step.name, partial(_run, step, subject))
        yield from checks


def _run(step: Step, subject: Subject) -> Iterable[Check]:
    module, _, name = step.function.partition(":")
    return getattr(import_module(f"verl_ext.doctor.{module}"), name)(subject)
