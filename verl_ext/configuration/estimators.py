# SPDX-License-Identifier: Apache-2.0
"""The names of the advantage estimators that are registered with verl, and which of them a run uses."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from verl_ext.configuration.section import Perception
from verl_ext.errors import ConfigurationError
from verl_ext.methods.base import Method

ESTIMATOR = "algorithm.adv_estimator"
OF_ONE_METHOD = ("pepo", "pgpo", "tor", "vepo", "vgpo", "vppo")
"""Estimators named after the method whose weights they multiply by."""
OF_ANY_METHODS = "perception"
"""The estimator that multiplies by the weights of all methods of a run, of other packages' too, or by none."""
REGISTERED = (*OF_ONE_METHOD, OF_ANY_METHODS)


def weighting(methods: Sequence[Method]) -> list[str]:
    """Names of those that weight advantages."""
    return [method.name for method in methods if type(method).advantage_weights is not Method.advantage_weights]


def nothing_measured(name: str, signals: Sequence[str] = ()) -> ConfigurationError:
    """What to say where a registered estimator has nothing to weight by.

    Args:
        name: of the estimator.
        signals: keyword arguments that a direct call lacks.
    """
    group = "<method>" if name == OF_ANY_METHODS else name
    given = ", ".join(f"{signal}=..." for signal in signals) or "its signals"
    remedy = f"nothing has measured what it weights by; add +perception={group}, or call the estimator with {given}"
    return ConfigurationError(key=ESTIMATOR, value=name, remedy=remedy)


def estimator_of(config: DictConfig, methods: Sequence[Method]) -> str:
    """What verl is to compute with: what the configuration says where that is so, else what says which methods act."""
    names, given = weighting(methods), config.algorithm.adv_estimator
    if given == OF_ANY_METHODS or names == [given]:
        return str(given)
    return names[0] if len(names) == 1 and names[0] in OF_ONE_METHOD else OF_ANY_METHODS


def weights_gae(config: DictConfig) -> bool:
    """Whether the base estimator needs a critic, for which verl looks at `algorithm.adv_estimator` alone."""
    return bool(OmegaConf.select(config, "perception.base_estimator") == "gae" and config.critic.enable is None)


def unmeasured(config: DictConfig) -> ConfigurationError | None:
    """What is wrong with a registered estimator in a configuration of verl's that has no `perception` section."""
    name = OmegaConf.select(config, ESTIMATOR, throw_on_missing=False)
    return nothing_measured(name) if name in REGISTERED and "perception" not in config else None


def check_estimator(config: DictConfig, perception: Perception, overrides: Sequence[str] = ()) -> None:
    """Require the base to be one of verl's, and what verl is told to compute with to be ours, or the base.

    Args:
        config: verl's.
        perception: its section.
        overrides: of the command line. An estimator among them must be one that acts; a group's may name a method that
            a later override has taken out.

    Raises:
        ConfigurationError: names the key that does not fit.
    """
    known = sorted(_known() - set(REGISTERED))
    base, acting = perception.options.base_estimator, weighting(perception.methods)
    if base not in known:
        remedy = f"write one of verl's: {', '.join(known)}"
        raise ConfigurationError(key="perception.base_estimator", value=base, remedy=remedy)
    given = any(override.lstrip("+").startswith(f"{ESTIMATOR}=") for override in overrides)
    usable = [*(name for name in acting if name in OF_ONE_METHOD), OF_ANY_METHODS]
    if config.algorithm.adv_estimator not in (*(usable if given else REGISTERED), base):
        remedy = (
            f"write {' or '.join(usable)}, or leave this key alone; whose advantages are weighted is chosen by "
            f"perception.base_estimator (now {base})"
        )
        raise ConfigurationError(key=ESTIMATOR, value=config.algorithm.adv_estimator, remedy=remedy)


def check_verls_estimator(config: DictConfig) -> None:
    """The same of a configuration without a `perception` section: one that verl knows, and none of ours.

    Raises:
        ConfigurationError: says what to add or to write.
    """
    if error := unmeasured(config):
        raise error
    name = config.algorithm.adv_estimator
    if name not in _known():
        remedy = f"verl knows no such estimator; write one of {', '.join(sorted(_known() - set(REGISTERED)))}"
        raise ConfigurationError(key=ESTIMATOR, value=name, remedy=remedy)


def _known() -> set[str]:
    """Names of all advantage estimators, with those of modules in VERL_USE_EXTERNAL_MODULES."""
    # Imported late: it loads torch and verl, which main_ppo has loaded by now.
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, AdvantageEstimator

    return {str(getattr(name, "value", name)) for name in ADV_ESTIMATOR_REGISTRY} | {AdvantageEstimator.GAE.value}
