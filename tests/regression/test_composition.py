# SPDX-License-Identifier: Apache-2.0
"""Several methods at once: weights multiply, loss terms add, every signal is measured once."""

import pytest
import torch
from support.configuration import configuration

from verl_ext.configuration.section import parse
from verl_ext.errors import ConfigurationError
from verl_ext.methods.base import LossInputs, RolloutSignals
from verl_ext.methods.credit import combined, method_weights
from verl_ext.passes.signals_by_pass import plan
from verl_ext.signals.request import AblatedLogProb, Divergence, Entropy, Similarity

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
OLD = torch.tensor([[-0.1, -0.5, -1.0, 0.0], [-0.3, -0.2, 0.0, 0.0]])
ABLATED = torch.tensor([[-0.4, -3.0, -1.1, 0.0], [-0.9, -0.2, 0.0, 0.0]])
IMAGES = torch.tensor([True, True])
SPREAD = torch.tensor([[0.1, 0.6, 0.3, 0.0], [0.2, 0.5, 0.0, 0.0]])


def perception(*overrides, group="pgpo"):
    return parse(configuration(f"+perception={group}", *overrides).perception)


def measured(wanted):
    values = {signal: ABLATED if isinstance(signal, AblatedLogProb) else SPREAD for signal in wanted}
    return RolloutSignals(MASK, IMAGES, torch.tensor([0, 0]), OLD, values, progress=0.5)


def weights_of(chosen):
    return combined(method_weights(chosen.methods, measured(chosen.signals)))


def test_pgpo_and_papo_act_at_their_own_places():
    both = perception("perception.methods=[pgpo,papo]")
    assert both.signals == {AblatedLogProb()}
    assert torch.equal(weights_of(both), weights_of(perception()))
    inputs = LossInputs(OLD, MASK, IMAGES, {AblatedLogProb(): ABLATED}, steps_done=0, total_steps=10)
    terms = [term.name for method in both.methods for term in method.loss_terms(inputs)]
    assert terms == ["perception_kl"]


def test_papo_alone_weights_nothing():
    assert weights_of(perception(group="papo_g")) is None


@pytest.mark.parametrize("names", ["pgpo,pepo", "pepo,vgpo", "vppo,pgpo", "vgpo,pgpo,pepo"])
def test_weights_multiply(names):
    idle = [] if "pgpo" in names else ["~perception.pgpo"]
    alone = [
        weights_of(perception(f"perception.methods=[{name}]", *(["~perception.pgpo"] if name != "pgpo" else [])))
        for name in names.split(",")
    ]
    product = torch.stack(alone).prod(dim=0)
    assert torch.allclose(weights_of(perception(f"perception.methods=[{names}]", *idle)), product)
    assert not any(torch.equal(product, one) for one in alone)


def test_methods_share_signals():
    shared = perception("perception.methods=[pgpo,vppo,papo]")
    assert shared.signals == {AblatedLogProb()}
    assert plan(shared.signals).separate == ("ablated",)


def test_each_view_is_run_once_however_many_signals_it_gives():
    chosen = perception("perception.methods=[pgpo,papo]", "perception.pgpo.divergence=kl")
    made = plan(chosen.signals)
    assert made.separate == ()
    assert made.paired == {"ablated": (AblatedLogProb(), Divergence("kl"))}


def test_methods_may_compare_with_views_of_their_own():
    chosen = perception(
        "perception.methods=[pgpo,papo]", "+perception.papo.view=masked", "+perception.views.masked.kind=random_patch"
    )
    assert chosen.signals == {AblatedLogProb(), AblatedLogProb("masked")}
    assert {name: spec.kind for name, spec in chosen.views.items()} == {
        "ablated": "drop_vision",
        "masked": "random_patch",
    }
    assert plan(chosen.signals).separate == ("ablated", "masked")


def test_hidden_states_and_logits_are_read_in_the_clean_pass():
    chosen = perception("~perception.pgpo", "perception.methods=[pepo,vgpo,tor]")
    made = plan(chosen.signals)
    assert set(made.similarities) == {
        Similarity("cosine", "all", "pairwise_mean"),
        Similarity("cosine", "last", "prototype"),
    }
    assert made.entropies == (Entropy(0.95),)
    assert (made.separate, made.paired) == (("ablated",), {})
    assert made.in_clean_pass


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("vppo,tor", "vppo and tor each train on a part of the tokens only"),
        ("vepo,pgpo,vppo", "vepo and vppo each train on a part of the tokens only"),
        ("papo,dvrp", "dvrp and papo do not go together: its perception term is dvrp's necessity term"),
    ],
)
def test_combinations_that_make_no_sense(names, reason):
    idle = [] if "pgpo" in names else ["~perception.pgpo"]
    with pytest.raises(ConfigurationError, match="keep one of them") as caught:
        perception(f"perception.methods=[{names}]", *idle)
    assert caught.value.key == "perception.methods"
    assert reason in str(caught.value)
