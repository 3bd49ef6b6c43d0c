# SPDX-License-Identifier: Apache-2.0
"""The PGPO method on what was measured over a rollout batch."""

import math

import pytest
import torch

from verl_ext.methods.base import RolloutSignals
from verl_ext.methods.pgpo import PGPO
from verl_ext.signals.request import AblatedLogProb, Divergence


def signals(has_image=(True, False, True)):
    """Three rows of four tokens; the first has 3 valid tokens, whose gaps to the ablated view are 0, -1 and -2."""
    old = torch.tensor([[-0.5, -0.5, -0.5, 0.0], [-1.0, -2.0, -3.0, -4.0], [-0.1, -0.2, -0.3, -0.4]])
    gaps = torch.tensor([[0.0, 1.0, 2.0, 7.0], [1e-4, 0.5, 0.0, 0.2], [0.3, 0.1, 0.9, 0.4]])
    return RolloutSignals(
        response_mask=torch.tensor([[True, True, True, False], [True] * 4, [True] * 4]),
        has_image=torch.tensor(has_image),
        group_ids=torch.tensor([0, 0, 1]),
        old_log_prob=old,
        measured={AblatedLogProb(): old - gaps, Divergence("kl"): gaps**2, Divergence("jsd"): gaps / 9},
    )


def by_hand(gaps, tau, boost, conserve):
    """Equations 6 and 7 of the paper."""
    x = [math.log(math.exp(-gap) + gap) for gap in gaps]
    scores = [(value - min(x)) / (max(x) - min(x)) for value in x]
    weights = [s / tau if s < tau else 1 + boost * (s - tau) / (1 - tau) for s in scores]
    return [w * len(weights) / sum(weights) for w in weights] if conserve else weights


def test_it_needs_the_ablated_view_and_adds_no_loss():
    assert PGPO().signals() == {AblatedLogProb()}
    assert PGPO(divergence="jsd", view="noised").signals() == {Divergence("jsd", "noised")}
    assert PGPO().loss_terms(None) == []


@pytest.mark.parametrize(
    ("tau", "boost", "conserve"), [(0.4, 2.0, True), (0.4, 2.0, False), (0.7, 0.5, True), (0.1, 0.0, False)]
)
def test_weights_are_the_papers(tau, boost, conserve):
    weights = PGPO(threshold=tau, boost=boost, conserve_mass=conserve).advantage_weights(signals())
    assert weights[0].tolist() == pytest.approx([*by_hand([0.0, 1.0, 2.0], tau, boost, conserve), 0.0], abs=1e-5)
    assert weights[2].tolist() == pytest.approx(by_hand([0.3, 0.1, 0.9, 0.4], tau, boost, conserve), abs=1e-5)


def test_rows_without_an_image_weigh_exactly_one():
    weights = PGPO().advantage_weights(signals())
    assert weights[1].tolist() == [1.0] * 4
    # They would not: the two views differ by the noise of another split into micro-batches.
    assert PGPO().advantage_weights(signals((True, True, True)))[1].tolist() != [1.0] * 4
    without = PGPO().advantage_weights(signals((False, False, False)))
    assert torch.equal(without, signals().response_mask.float())


def test_the_cap_bounds_the_weights_and_nothing_else():
    free, capped = PGPO().advantage_weights(signals()), PGPO(weight_cap=1.2).advantage_weights(signals())
    assert free.max() > 1.2
    assert torch.equal(capped, free.clamp(max=1.2))


def test_every_parameter_reaches_the_weights():
    default = PGPO().advantage_weights(signals())
    for other in (
        PGPO(threshold=0.6),
        PGPO(boost=1.0),
        PGPO(threshold_mode="quantile"),
        PGPO(low_weight_floor=0.5),
        PGPO(conserve_mass=False),
        PGPO(weight_cap=1.5),
        PGPO(divergence="kl"),
        PGPO(divergence="jsd"),
    ):
        assert not torch.allclose(other.advantage_weights(signals()), default), other


def test_weights_are_detached_and_leave_the_signals_alone():
    given = signals()
    given.old_log_prob.requires_grad_(True)
    before = [given.old_log_prob.clone(), given[AblatedLogProb()].clone()]
    assert not PGPO().advantage_weights(given).requires_grad
    assert torch.equal(before[0], given.old_log_prob)
    assert torch.equal(before[1], given[AblatedLogProb()])
