# SPDX-License-Identifier: Apache-2.0
"""The PAPO method: which signals, which loss terms, with which coefficients."""

import math

import pytest
import torch

from verl_ext.methods.base import LossInputs
from verl_ext.methods.papo import PAPO
from verl_ext.signals.request import AblatedLogProb

GAP = math.log(2.0)
K3 = 2.0 - GAP - 1.0
"""k3 of a token that is twice as likely without the image."""


def inputs(steps_done=0, total_steps=100):
    """Two rows of three tokens, the last of the first row invalid; only the first row has an image."""
    return LossInputs(
        log_prob=torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -0.25, -4.0]], requires_grad=True),
        response_mask=torch.tensor([[True, True, False], [True, True, True]]),
        has_image=torch.tensor([True, False]),
        measured={AblatedLogProb(): torch.tensor([[-1.0 + GAP, -2.0, 9.0], [-0.5 + GAP, 0.0, 0.0]])},
        steps_done=steps_done,
        total_steps=total_steps,
    )


def terms(method, **steps):
    return {term.name: term for term in method.loss_terms(inputs(**steps))}


def coefficients(method, **steps):
    return {name: term.coef for name, term in terms(method, **steps).items()}


@pytest.mark.parametrize(
    ("method", "needed"),
    [
        (PAPO(), {AblatedLogProb()}),
        (PAPO(view="noised"), {AblatedLogProb("noised")}),
        (PAPO(coef=0.0), set()),
        (PAPO(coef=0.0, end_coef=0.1), set()),
        (PAPO(coef=0.0, entropy_coef=0.1), set()),
        (PAPO(coef=0.0, schedule="annealing"), set()),
        (PAPO(coef=0.0, schedule="annealing", end_coef=0.1), {AblatedLogProb()}),
        (PAPO(coef=0.1, schedule="annealing", end_coef=0.0), {AblatedLogProb()}),
    ],
)
def test_signals(method, needed):
    assert method.signals() == needed


def test_a_neutral_setting_has_no_terms():
    assert PAPO(coef=0.0).loss_terms(inputs()) == []
    assert PAPO(coef=0.0, schedule="annealing").loss_terms(inputs(steps_done=30)) == []


def test_it_does_not_weight_advantages():
    assert PAPO().advantage_weights(None) is None


def test_the_perception_term_is_subtracted():
    (term,) = PAPO(coef=0.25).loss_terms(inputs())
    assert (term.name, term.coef, term.token_mean) == ("perception_kl", -0.25, False)
    assert term.values.tolist() == [pytest.approx([K3, 0.0, 0.0], abs=1e-6), [0.0, 0.0, 0.0]]


def test_selection_reaches_the_values():
    clipped = terms(PAPO(clip=0.1))["perception_kl"].values
    assert clipped[0].tolist() == pytest.approx([0.1, 0.0, 0.0])
    top = terms(PAPO(top_fraction=0.5))["perception_kl"].values
    assert top[0].tolist() == pytest.approx([K3, 0.0, 0.0], abs=1e-6)


def test_the_entropy_term_is_the_surprise_of_every_valid_token():
    made = terms(PAPO(coef=0.25, entropy_coef=0.5))
    assert coefficients(PAPO(coef=0.25, entropy_coef=0.5)) == {"perception_kl": -0.25, "entropy": 0.5}
    assert made["entropy"].token_mean
    assert made["entropy"].values.tolist() == [[1.0, 2.0, 0.0], [0.5, 0.25, 4.0]]


def test_the_entropy_term_stands_alone_without_a_perception_term():
    assert coefficients(PAPO(coef=0.0, entropy_coef=0.5)) == {"entropy": 0.5}


def test_both_terms_are_differentiable():
    given = inputs()
    perception, entropy = PAPO(entropy_coef=0.5).loss_terms(given)
    (gradient,) = torch.autograd.grad(perception.values.sum(), given.log_prob)
    # d k3 / d log_prob = 1 - exp(ablated - clean)
    assert gradient.tolist() == [pytest.approx([-1.0, 0.0, 0.0], abs=1e-6), [0.0, 0.0, 0.0]]
    (gradient,) = torch.autograd.grad(entropy.values.sum(), given.log_prob)
    assert gradient.tolist() == [[-1.0, -1.0, 0.0], [-1.0, -1.0, -1.0]]


def test_fixed_schedule():
    assert {PAPO(coef=0.02, end_coef=0.7).coefficient(step, 100) for step in (0, 50, 99, 200)} == {0.02}


@pytest.mark.parametrize(
    ("steps_done", "coefficient"), [(0, 0.02), (10, 0.016), (25, 0.01), (49, 0.0004), (50, 0.0), (99, 0.0)]
)
def test_annealing_over_half_the_run(steps_done, coefficient):
    method = PAPO(coef=0.02, schedule="annealing", end_coef=0.0, anneal_fraction=0.5)
    assert method.coefficient(steps_done, 100) == pytest.approx(coefficient, abs=1e-12)


def test_annealing_to_another_value():
    method = PAPO(coef=0.01, schedule="annealing", end_coef=0.05, anneal_fraction=1.0)
    assert [method.coefficient(step, 4) for step in range(6)] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.05])


@pytest.mark.parametrize(("fraction", "total"), [(0.0, 100), (0.5, 1), (0.01, 10)])
def test_annealing_in_less_than_a_step_takes_one(fraction, total):
    method = PAPO(coef=0.02, schedule="annealing", anneal_fraction=fraction)
    assert method.coefficient(0, total) == 0.02
    assert method.coefficient(1, total) == 0.0


def test_the_entropy_term_fades_with_the_perception_term():
    method = PAPO(coef=0.02, schedule="annealing", end_coef=0.0, anneal_fraction=0.5, entropy_coef=0.03)
    assert coefficients(method, steps_done=0) == pytest.approx({"perception_kl": -0.02, "entropy": 0.03})
    assert coefficients(method, steps_done=25) == pytest.approx({"perception_kl": -0.01, "entropy": 0.015})
    assert coefficients(method, steps_done=50) == {}
