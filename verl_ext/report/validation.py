# SPDX-License-Identifier: Apache-2.0
"""Which validation metrics of a run are drawn: of those of one data source, the one that says most."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from verl_ext.report.metrics_file import measured
from verl_ext.report.runs import Run
from verl_ext.report.summary import BLIND_SUFFIX

_METRIC = re.compile(r"val-core/(?P<source>.+)/(?P<kind>acc|reward)/mean@(?P<answers>\d+)")
Rank = tuple[bool, int]


@dataclass(frozen=True)
class Validation:
    """What a run has of one data source.

    Attributes:
        metric: with the image, or None.
        blind: with the image taken away, or None.
        alike: whether the two are the same metric, over equally many answers, and can be subtracted.
        others: metrics that are not drawn.
    """

    metric: str | None
    blind: str | None
    alike: bool
    others: tuple[str, ...]


def sources(runs: Sequence[Collection[str]]) -> list[str]:
    """Data sources that are validated, in alphabetical order, without the blind twins of others.

    Args:
        runs: the names of each run's metrics.
    """
    found = {match["source"] for names in runs for name in names if (match := _METRIC.fullmatch(name))}
    return sorted(source for source in found if not _is_twin(source, found))


def choose_metrics(source: str, names: Collection[str]) -> Validation:
    """Accuracy before reward, then the most answers a question; the same with and without the image where there is one.

    Args:
        source: one of `sources`.
        names: of the run's metrics.
    """
    own, blind = _candidates(source, names), _candidates(source + BLIND_SUFFIX, names)
    common = own.keys() & blind.keys()
    chosen = [found[max(common or found)] if found else None for found in (own, blind)]
    others = sorted({*own.values(), *blind.values()} - {*chosen})
    return Validation(chosen[0], chosen[1], bool(common), tuple(others))


def with_notes(runs: Sequence[Run]) -> list[Run]:
    """The runs with notes about validation metrics that do not compare, and about those that are not drawn."""
    names = [measured(run.steps) for run in runs]
    every = {source: [choose_metrics(source, own) for own in names] for source in sources(names)}
    return [replace(run, notes=[*run.notes, *_notes(index, runs, every)]) for index, run in enumerate(runs)]


def _notes(index: int, runs: Sequence[Run], every: Mapping[str, Sequence[Validation]]) -> Iterator[str]:
    labels = [run.label for run in runs]
    for validations in every.values():
        own = validations[index]
        if own.others:
            yield f"{', '.join(own.others)}: not drawn beside {own.metric or own.blind}, but under All metrics"
        if own.metric and own.blind and not own.alike:
            yield f"{own.metric} and {own.blind} do not compare; their difference is not drawn"
        yield from _unlike(index, labels, [validation.metric for validation in validations])
        yield from _unlike(index, labels, [validation.blind for validation in validations])


def _unlike(index: int, labels: Sequence[str], drawn: Sequence[str | None]) -> Iterator[str]:
    """Whether a run's line is of another metric than that of the first run that has one."""
    metric = drawn[index]
    first, other = next(((label, found) for label, found in zip(labels, drawn, strict=True) if found), ("", None))
    if metric and other and metric != other:
        yield f"{metric} is drawn in one plot with {other} of {first}; {_difference(metric, other)}"


def _difference(metric: str, other: str) -> str:
    if _rank(metric)[0] == _rank(other)[0]:
        return "a mean of fewer answers a question varies more"
    return "accuracy and reward do not compare"


def _candidates(source: str, names: Collection[str]) -> dict[Rank, str]:
    matches = (match for name in names if (match := _METRIC.fullmatch(name)))
    return {_rank(match.string): match.string for match in matches if match["source"] == source}


def _rank(metric: str) -> Rank:
    _, kind, answers = metric.rsplit("/", 2)
    return kind == "acc", int(answers.removeprefix("mean@"))


def _is_twin(source: str, found: Collection[str]) -> bool:
    return source.endswith(BLIND_SUFFIX) and source.removesuffix(BLIND_SUFFIX) in found
