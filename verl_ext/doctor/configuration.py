# SPDX-License-Identifier: Apache-2.0
"""Does the configuration compose, and do this package and verl accept it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from verl_ext.configuration.compose import compose
from verl_ext.configuration.section import Perception, parse
from verl_ext.configuration.validation import validate
from verl_ext.doctor.checks import Check, failure, ok, one_line
from verl_ext.doctor.subject import Subject
from verl_ext.passes.signals_by_pass import plan

REFUSALS = (AssertionError, ValueError, TypeError, ImportError, SystemExit, HydraException, OmegaConfBaseException)
"""What verl, or this package's check before it, raises for a configuration that does not fit."""


def composition(subject: Subject) -> Iterator[Check]:
    """Compose it as main_ppo would."""
    subject.config = compose(subject.overrides, subject.config_path, subject.config_name)
    count = len(subject.overrides)
    yield ok("composition", f"{subject.config_name} with {count} override{'' if count == 1 else 's'}")


def perception(subject: Subject) -> Iterator[Check]:
    """Check the `perception` section, and the rest against it."""
    if "perception" not in subject.composed:
        yield ok("perception", "no +perception: verl runs as it would without this package")
        return
    subject.refused = True
    subject.perception = parse(subject.composed.perception)
    validate(subject.composed, subject.overrides)
    subject.refused = False
    yield ok("perception", _summary(subject.perception))


def verls_checks(subject: Subject) -> Iterator[Check]:
    """What main_ppo runs before it starts Ray."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    config = deepcopy(subject.composed)

    def check() -> None:
        validate_config(
            config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config)
        )

    yield _judged("verl's checks", check, "main_ppo's own checks pass")


def trainer(subject: Subject) -> Iterator[Check]:
    """What the trainer of the run checks when it is built. Says nothing where the package has refused already."""
    from verl.trainer.ppo.v1 import get_trainer_cls

    if subject.refused:
        return
    if not subject.get("trainer.use_v1"):
        yield ok("trainer", "verl's older trainer, which is not looked into")
        return
    config, mode = deepcopy(subject.composed), subject.get("trainer.v1.trainer_mode")
    yield _judged("trainer", lambda: get_trainer_cls(mode)(config), f"{mode} can be built with this configuration")


def _judged(name: str, check: Callable[[], object], fine: str) -> Check:
    """Whether verl accepts the configuration, in verl's words where it does not."""
    try:
        check()
    except REFUSALS as error:
        # Hydra wraps what a dataclass of verl's raises.
        message = one_line(str(error.__cause__ or error)) or repr(error)
        return failure(name, message, "main_ppo would stop here; change what it names")
    return ok(name, fine)


def _summary(section: Perception) -> str:
    """Methods, and the passes that measure their signals."""
    passes = plan(section.signals)
    in_clean = [signal.field for signal in passes.similarities] + [signal.field for signal in passes.entropies]
    parts = [", ".join(method.name for method in section.methods)]
    parts += [f"{', '.join(in_clean)} in verl's own pass"] if in_clean else []
    parts += [f"view {view} beside verl's own pass" for view in passes.paired]
    parts += [f"view {view} in a pass of its own" for view in passes.separate]
    return "; ".join(parts)
