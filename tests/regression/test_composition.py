# SPDX-License-Identifier: Apache-2.0
"""Two methods at once: weights on the advantages, terms in the loss, one ablated view for both."""

import torch
from support.configuration import configuration

from verl_ext.integration.advantage import combined_weights
from verl_ext.integration.config import parse
from verl_ext.methods.base import ABLATED_LOG_PROB, LossInputs, RolloutSignals

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
OLD = torch.tensor([[-0.1, -0.5, -1.0, 0.0], [-0.3, -0.2, 0.0, 0.0]])
ABLATED = torch.tensor([[-0.4, -3.0, -1.1, 0.0], [-0.9, -0.2, 0.0, 0.0]])
IMAGES = torch.tensor([True, True])


def perception(*overrides):
    return parse(configuration("+perception=pgpo", *overrides).perception)


def test_pgpo_and_papo_act_at_their_own_places():
    both = perception("perception.methods=[pgpo,papo]")
    assert both.signals == {ABLATED_LOG_PROB}
    signals = RolloutSignals(MASK, IMAGES, torch.tensor([0, 0]), OLD, ABLATED)
    weights = combined_weights(both.methods, signals)
    assert torch.equal(weights, combined_weights(perception().methods, signals))
    inputs = LossInputs(OLD, MASK, IMAGES, ABLATED, steps_done=0, total_steps=10)
    terms = [term.name for method in both.methods for term in method.loss_terms(inputs)]
    assert terms == ["perception_kl"]


def test_papo_alone_weights_nothing():
    papo = parse(configuration("+perception=papo_g").perception)
    assert combined_weights(papo.methods, RolloutSignals(MASK, IMAGES, torch.tensor([0, 0]), OLD, ABLATED)) is None
