# SPDX-License-Identifier: Apache-2.0
"""Names of signals, and which pass measures which."""

import itertools

import pytest

from verl_ext.passes.signals_by_pass import log_prob_fields, plan
from verl_ext.signals.request import AblatedLogProb, Divergence, Entropy, Similarity, needs_logits, view_of

SIGNALS = [
    *(AblatedLogProb(view) for view in ("ablated", "noised")),
    *(Divergence(kind, view) for kind in ("kl", "jsd") for view in ("ablated", "noised")),
    *(Entropy(top_p, view) for top_p, view in ((1.0, "clean"), (0.95, "clean"), (0.9, "clean"), (1.0, "ablated"))),
    *itertools.starmap(
        Similarity,
        itertools.product(("cosine", "dot", "l2", "l1"), ("all", "last"), ("pairwise_mean", "prototype")),
    ),
]


def test_every_signal_has_a_field_of_its_own():
    fields = [signal.field for signal in SIGNALS]
    assert len(set(fields)) == len(fields)
    # verl's own fields of a rollout batch, but for the entropy, which verl measures for us.
    taken = {"old_log_probs", "ref_log_prob", "rollout_log_probs", "advantages", "values", "log_probs", "uid"}
    assert not taken & set(fields)
    assert [signal for signal in SIGNALS if signal.field == "entropy"] == [Entropy()]


@pytest.mark.parametrize(
    ("signal", "logits", "view"),
    [
        (AblatedLogProb(), False, "ablated"),
        (AblatedLogProb("noised"), False, "noised"),
        (Divergence("jsd", "noised"), True, "noised"),
        (Entropy(), False, None),
        (Entropy(0.5), True, None),
        (Entropy(view="ablated"), True, "ablated"),
        (Similarity(), False, None),
    ],
)
def test_what_a_signal_takes(signal, logits, view):
    assert needs_logits(signal) is logits
    assert view_of(signal) == view


def test_nothing_wanted_is_nothing_measured():
    empty = plan([])
    assert not empty.in_clean_pass
    assert (empty.similarities, empty.entropies, empty.paired, empty.separate) == ((), (), {}, ())


def test_verls_own_entropy_costs_nothing():
    assert not plan([Entropy()]).in_clean_pass


def test_a_view_is_paired_as_soon_as_one_signal_needs_whole_distributions():
    made = plan([AblatedLogProb(), Divergence("kl"), AblatedLogProb("noised"), Entropy(view="masked")])
    assert dict(made.paired) == {"ablated": (AblatedLogProb(), Divergence("kl")), "masked": (Entropy(view="masked"),)}
    assert made.separate == ("noised",)
    assert made.in_clean_pass
    assert log_prob_fields(made.separate) == {"noised": "ablated_log_prob_noised"}


def test_the_order_of_the_signals_does_not_matter():
    assert plan(SIGNALS) == plan(SIGNALS[::-1])
    made = plan(SIGNALS)
    assert len(made.similarities) == 16
    assert made.entropies == (Entropy(0.9), Entropy(0.95))
