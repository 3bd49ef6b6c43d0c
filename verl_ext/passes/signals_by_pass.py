# SPDX-License-Identifier: Apache-2.0
"""Which pass measures which signal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from verl_ext.signals.request import CLEAN_VIEW, AblatedLogProb, Entropy, Signal, Similarity, needs_logits, view_of


@dataclass(frozen=True)
class Plan:
    """The signals of a run by the pass that measures them.

    Attributes:
        similarities: hidden states of verl's own old-log-prob pass.
        entropies: truncated entropies, from the logits of that pass.
        paired: by view, the signals that compare whole distributions. The view is run right after the clean one,
            micro-batch by micro-batch, so that neither's logits are ever stored.
        separate: views of which only sampled log-probabilities are wanted, run in a pass of their own.
    """

    similarities: tuple[Similarity, ...]
    entropies: tuple[Entropy, ...]
    paired: Mapping[str, tuple[Signal, ...]]
    separate: tuple[str, ...]

    @property
    def in_clean_pass(self) -> bool:
        """Whether verl's own pass has anything to measure for us."""
        return bool(self.similarities or self.entropies or self.paired)


def plan(signals: Iterable[Signal]) -> Plan:
    """Sort `signals` into passes."""
    ordered = sorted(signals, key=lambda signal: signal.field)
    by_view: dict[str, list[Signal]] = {}
    for signal in ordered:
        if view := view_of(signal):
            by_view.setdefault(view, []).append(signal)
    paired = {view: tuple(group) for view, group in by_view.items() if any(map(needs_logits, group))}
    return Plan(
        similarities=tuple(signal for signal in ordered if isinstance(signal, Similarity)),
        entropies=tuple(
            signal
            for signal in ordered
            if isinstance(signal, Entropy) and signal.view == CLEAN_VIEW and needs_logits(signal)
        ),
        paired=paired,
        separate=tuple(view for view in by_view if view not in paired),
    )


def log_prob_fields(views: Iterable[str]) -> dict[str, str]:
    """Field of the sampled log-probabilities of each view."""
    return {view: AblatedLogProb(view).field for view in views}
