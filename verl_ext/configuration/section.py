# SPDX-License-Identifier: Apache-2.0
"""The `perception` section of the configuration, typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from verl_ext.ablation.spec import AblationSpec
from verl_ext.configuration.typed import build, unknown_key
from verl_ext.errors import ConfigurationError
from verl_ext.methods.available import available_methods
from verl_ext.methods.base import Method, bounded, choice
from verl_ext.signals.request import CLEAN_VIEW, MAIN_VIEW, Signal, view_of
from verl_ext.supervision.broken_numbers import SKIP, STOP
from verl_ext.supervision.collapse import SHORTEST_WINDOW


@dataclass(frozen=True)
class RunOptions:
    """The keys of `perception` that belong to no single method.

    Attributes:
        methods: names of the methods, applied together.
        base_estimator: verl's advantage estimator whose advantages the methods weight.
        seed: seed of the image ablation; with the training step and the prompt's content it fixes every mask.
        min_rollout_correlation: stop when the correlation of rollout and actor log-probabilities falls below it;
            null turns the check off.
        record_every: write per-token records of `record_rows` responses every so many steps, and of those to the
            prompts of the first record whenever they recur; 0 writes none.
        record_rows: responses per record file.
        fade_over: share of the run over which the influence of all methods falls linearly to none; null keeps it.
        on_broken: what to do with responses of which a signal or weight is NaN or infinite: "stop" the run, or "skip"
            them.
        collapse_window: steps over which early signs of a collapse are looked for; 0 turns the warning off.
        shuffle_weights: permute each response's advantage weights among its tokens, as a control.
        zero_equal_reward_groups: give groups whose responses all have the same reward the advantage 0. verl's grpo
            leaves them the rounding noise of their mean over 1e-6, and a group of one its reward.
        response_only_logits: compute logits of response tokens only, in every pass of actor and reference; null does so
            wherever the engine lets it.
        share_prompts: compute a group's prompt and pictures once, in every pass of actor and reference; null does so
            wherever engine, model and attention allow.
        tower_cache_gb: host memory, in units of 10^9 bytes, that each rank may fill with what a frozen vision tower
            made of a step's pictures, for all passes over them; 0 keeps nothing. Without
            `actor_rollout_ref.actor.freeze_vision_tower` nothing is ever kept.
        unverified_model: run on a model, or on one of verl's engines for it, that methods were not verified on, after a
            warning; its parts are looked for where Qwen2.5-VL has them.
    """

    methods: list[str] = field(default_factory=list)
    base_estimator: str = "grpo"
    seed: int = bounded(0, 0, 2**63 - 1)
    min_rollout_correlation: float | None = bounded(0.95, -1.0, 1.0)
    record_every: int = bounded(0, 0, 2**31)
    record_rows: int = bounded(8, 1, 2**31)
    fade_over: float | None = bounded(None, 1e-6, 1.0)
    on_broken: str = choice(STOP, SKIP)
    collapse_window: int = bounded(20, 0, 2**31)
    shuffle_weights: bool = False
    zero_equal_reward_groups: bool = False
    response_only_logits: bool | None = None
    share_prompts: bool | None = None
    tower_cache_gb: float = bounded(2.0, 0.0, 1e6)
    unverified_model: bool = False


@dataclass(frozen=True)
class Perception:
    """A validated `perception` section: its options, its methods in order, and how the image is taken away.

    Attributes:
        options: what belongs to no single method.
        methods: the methods, applied together.
        views: the ablated views by name; the main one is `perception.ablation`.
    """

    options: RunOptions
    methods: tuple[Method, ...]
    views: Mapping[str, AblationSpec]

    @property
    def signals(self) -> frozenset[Signal]:
        """The signals that the methods need together; each is measured once."""
        return frozenset().union(*(method.signals() for method in self.methods))


def parse(section: DictConfig | Mapping[str, Any]) -> Perception:
    """Read and check the `perception` section.

    Raises:
        ConfigurationError: a key is unknown, a value has the wrong type or is out of range, a method or view is
            unknown, or methods do not go together.
    """
    values = _plain(section)
    classes = available_methods()
    views = _views(values.pop("ablation", None), values.pop("views", None))
    sections = {name: values.pop(name) for name in list(values) if name in classes}
    _refuse_unknown(values, classes)
    options = build(RunOptions, values, "perception")
    _refuse_short_window(options.collapse_window)
    names = _names(options.methods, classes)
    _refuse_idle(names, sections)
    _refuse_combination(names, classes)
    methods = tuple(build(classes[name], sections.get(name), f"perception.{name}") for name in names)
    for method in methods:
        _refuse_unknown_signal(method)
        _refuse_unknown_view(method, views)
    _refuse_idle_views(methods, views)
    return Perception(options, methods, views)


def _views(main: Any, others: Any) -> dict[str, AblationSpec]:
    others = {} if others is None else others
    if not isinstance(others, Mapping):
        raise ConfigurationError(key="perception.views", value=others, remedy="write views.<name>.kind=... instead")
    for reserved in (MAIN_VIEW, CLEAN_VIEW):
        if reserved in others:
            remedy = "the name is taken; choose another, or describe the main view by perception.ablation"
            raise ConfigurationError(key=f"perception.views.{reserved}", value=others[reserved], remedy=remedy)
    views = {MAIN_VIEW: build(AblationSpec, main, "perception.ablation")}
    return {**views, **{name: build(AblationSpec, spec, f"perception.views.{name}") for name, spec in others.items()}}


def _plain(section: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(section, DictConfig):
        return dict(OmegaConf.to_container(section, resolve=True))  # type: ignore[arg-type]
    return dict(section)


def _refuse_unknown(values: Mapping[str, Any], classes: Mapping[str, type[Method]]) -> None:
    known = {*RunOptions.__dataclass_fields__, "ablation", "views", *classes}
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


def _refuse_combination(names: list[str], classes: Mapping[str, type[Method]]) -> None:
    selecting = [name for name in names if classes[name].selects_tokens]
    if len(selecting) > 1:
        remedy = (
            f"{' and '.join(selecting)} each train on a part of the tokens only, and together on those that all "
            "choose, which may be none; keep one of them"
        )
        raise ConfigurationError(key="perception.methods", value=names, remedy=remedy)
    for name in names:
        for other, reason in classes[name].excludes.items():
            if other in names:
                remedy = f"{name} and {other} do not go together: {reason}; keep one of them"
                raise ConfigurationError(key="perception.methods", value=names, remedy=remedy)


def _refuse_unknown_signal(method: Method) -> None:
    unknown = [signal for signal in method.signals() if not isinstance(signal, Signal)]
    if unknown:
        known = ", ".join(kind.__name__ for kind in get_args(Signal))
        remedy = f"{method.name} needs signals that nothing measures; verl_ext.signals.request has {known}"
        raise ConfigurationError(key="perception.methods", value=unknown, remedy=remedy)


def _refuse_short_window(window: int) -> None:
    if 0 < window < SHORTEST_WINDOW:
        remedy = f"too short to tell a trend from noise; write {SHORTEST_WINDOW} or more, or 0 for no warning"
        raise ConfigurationError(key="perception.collapse_window", value=window, remedy=remedy)


def _refuse_idle_views(methods: Iterable[Method], views: Mapping[str, AblationSpec]) -> None:
    named = {getattr(method, field.name) for method in methods for field in fields(method) if "view" in field.name}
    named |= {view_of(signal) for method in methods for signal in method.signals()}
    for view in views:
        if view != MAIN_VIEW and view not in named:
            remedy = f"no method compares with it; write perception.<method>.view={view}, or leave it out"
            raise ConfigurationError(key=f"perception.views.{view}", value=views[view].kind, remedy=remedy)


def _refuse_unknown_view(method: Method, views: Mapping[str, AblationSpec]) -> None:
    for view in sorted(filter(None, map(view_of, method.signals()))):
        if view not in views:
            remedy = f"{method.name} compares with it but nothing describes it; add +perception.views.{view}.kind=..."
            raise ConfigurationError(key="perception.views", value=sorted(views), remedy=remedy)
        if views[view].leaves_image:
            key = "perception.ablation" if view == MAIN_VIEW else f"perception.views.{view}"
            remedy = f"it leaves the image as it is, so {method.name} would measure nothing; write a higher strength"
            raise ConfigurationError(key=key, value=views[view].kind, remedy=remedy)
