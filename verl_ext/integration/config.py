# SPDX-License-Identifier: Apache-2.0
"""The `perception` section of the configuration, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ext.ablation.spec import AblationSpec
from verl_ext.errors import ConfigurationError
from verl_ext.integration.typed import build, unknown_key
from verl_ext.methods.base import SIGNALS, Method, bounded
from verl_ext.methods.registry import available_methods


@dataclass(frozen=True)
class RunOptions:
    """The keys of `perception` that belong to no single method.

    Attributes:
        methods: names of the methods, applied together.
        base_estimator: verl's advantage estimator whose advantages the methods weight.
        seed: seed of the image ablation; with the training step and the prompt's content it fixes every mask.
        min_rollout_correlation: stop when the correlation of rollout and actor log-probabilities falls below it;
            null turns the check off.
        record_every: write per-token records of `record_rows` responses every so many steps; 0 writes none.
        record_rows: responses per record file.
    """

    methods: list[str] = field(default_factory=list)
    base_estimator: str = "grpo"
    seed: int = bounded(0, 0, 2**63 - 1)
    min_rollout_correlation: float | None = bounded(0.95, -1.0, 1.0)
    record_every: int = bounded(0, 0, 2**31)
    record_rows: int = bounded(8, 1, 2**31)


@dataclass(frozen=True)
class Perception:
    """A validated `perception` section: its options, its methods in order, and how the image is taken away."""

    options: RunOptions
    methods: tuple[Method, ...]
    ablation: AblationSpec

    @property
    def signals(self) -> frozenset[str]:
        """The signals that the methods need together; each is measured once."""
        return frozenset().union(*(method.signals() for method in self.methods))


def parse(section: DictConfig | Mapping[str, Any]) -> Perception:
    """Read and check the `perception` section.

    Raises:
        ConfigurationError: a key is unknown, a value has the wrong type or is out of range, or a method is unknown.
    """
    values = _plain(section)
    classes = available_methods()
    ablation = build(AblationSpec, values.pop("ablation", None), "perception.ablation")
    sections = {name: values.pop(name) for name in list(values) if name in classes}
    _refuse_unknown(values, classes)
    options = build(RunOptions, values, "perception")
    names = _names(options.methods, classes)
    _refuse_idle(names, sections)
    methods = tuple(_method(name, classes, sections) for name in names)
    return Perception(options, methods, ablation)


def _plain(section: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(section, DictConfig):
        return dict(OmegaConf.to_container(section, resolve=True))  # type: ignore[arg-type]
    return dict(section)


def _refuse_unknown(values: Mapping[str, Any], classes: Mapping[str, type[Method]]) -> None:
    known = {*RunOptions.__dataclass_fields__, "ablation", *classes}
    for key, value in values.items():
        if key not in known:
            raise unknown_key(f"perception.{key}", value, key, known)


def _refuse_idle(names: list[str], sections: Mapping[str, Any]) -> None:
    idle = sorted(set(sections) - set(names))
    if idle:
        remedy = f"it is configured but does not act; write perception.methods=[{','.join([*names, *idle])}]"
        raise ConfigurationError(key=f"perception.{idle[0]}", value=sections[idle[0]], remedy=remedy)


def _names(names: list[str], classes: Mapping[str, type[Method]]) -> list[str]:
    remedy = f"write a list of different names among {', '.join(classes)}, e.g. perception.methods=[pgpo]"
    if not names or any(name not in list(classes) or names.count(name) > 1 for name in names):
        raise ConfigurationError(key="perception.methods", value=names, remedy=remedy)
    return names


def _method(name: str, classes: Mapping[str, type[Method]], sections: Mapping[str, Any]) -> Method:
    method = build(classes[name], sections.get(name), f"perception.{name}")
    unknown = method.signals() - SIGNALS
    if unknown:
        remedy = f"{name} needs signals that nothing measures; known are {', '.join(sorted(SIGNALS))}"
        raise ConfigurationError(key="perception.methods", value=sorted(unknown), remedy=remedy)
    return method
