# SPDX-License-Identifier: Apache-2.0
"""The methods as the trainer uses them: which signals they ask for, and that every parameter reaches the weights."""

import dataclasses

import pytest
import torch

from verl_ext.methods import pepo, vepo, vgpo, vppo
from verl_ext.methods.available import available_methods
from verl_ext.methods.base import LossInputs, RolloutSignals
from verl_ext.methods.dvrp import DVRP
from verl_ext.methods.papo import perception_values
from verl_ext.methods.pepo import PEPO
from verl_ext.methods.tor import ToR
from verl_ext.methods.vepo import VEPO
from verl_ext.methods.vgpo import VGPO, VISUAL_FOCUS
from verl_ext.methods.vppo import VPPO
from verl_ext.signals import sampled_k3
from verl_ext.signals.request import AblatedLogProb, Divergence, Entropy, Similarity

ROWS, COLUMNS = 8, 20
SIMILARITY = Similarity("cosine", "all", "pairwise_mean")
WEIGHTING = [PEPO(), VGPO(), VPPO(), ToR(), VEPO()]
IDS = [method.name for method in WEIGHTING]


def measured(wanted=(), *, images=True, progress=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([20, 3, 17, 1, 9, 0, 12, 20])
    draw = {signal: torch.rand(ROWS, COLUMNS, generator=generator) for signal in sorted(wanted, key=lambda s: s.field)}
    values = {s: -3.0 * value if isinstance(s, AblatedLogProb) else value for s, value in draw.items()}
    return RolloutSignals(
        response_mask=torch.arange(COLUMNS) < lengths[:, None],
        has_image=torch.tensor([images] * ROWS),
        group_ids=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
        old_log_prob=-torch.rand(ROWS, COLUMNS, generator=generator),
        measured=values,
        progress=progress,
    )


def weights_of(method, **how):
    return method.advantage_weights(measured(method.signals(), **how))


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (PEPO(), {SIMILARITY, Entropy()}),
        (PEPO(score="l2", layers="last"), {Similarity("l2", "last", "pairwise_mean"), Entropy()}),
        (PEPO(strength=0.0), set()),
        (VGPO(), {VISUAL_FOCUS}),
        (VGPO(token_reweighting=False), {VISUAL_FOCUS}),
        (VGPO(token_reweighting=False, trajectory_reweighting=False), set()),
        (VPPO(), {AblatedLogProb()}),
        (VPPO(divergence="kl", view="noised"), {Divergence("kl", "noised")}),
        (VPPO(top_fraction=1.0), {AblatedLogProb()}),
        (VPPO(top_fraction=1.0, floor=1.0), set()),
        (ToR(), {Entropy(0.95), AblatedLogProb()}),
        (ToR(top_p=0.5, view="noised"), {Entropy(0.5), AblatedLogProb("noised")}),
        (ToR(perception_weight=1.0, other_weight=1.0), set()),
        (VEPO(), {Divergence("jsd"), Entropy(), Entropy(view="ablated")}),
        (VEPO(top_fraction=1.0), set()),
        (DVRP(), {AblatedLogProb(), AblatedLogProb("noised")}),
        (DVRP(robustness_coef=0.0), {AblatedLogProb()}),
        (DVRP(necessity_coef=0.0, noise_view="x"), {AblatedLogProb("x")}),
        (DVRP(necessity_coef=0.0, robustness_coef=0.0), set()),
    ],
    ids=lambda value: repr(sorted(value, key=str) if isinstance(value, set) else value),
)
def test_signals(method, wanted):
    assert method.signals() == wanted


@pytest.mark.parametrize("method", WEIGHTING, ids=IDS)
def test_weights_are_finite_detached_and_zero_outside_the_mask(method):
    given = measured(method.signals())
    weights = method.advantage_weights(given)
    assert torch.isfinite(weights).all()
    assert weights.dtype == torch.float32
    assert not weights.requires_grad
    assert (weights[~given.response_mask] == 0).all()
    assert weights.std() > 0


@pytest.mark.parametrize("method", WEIGHTING, ids=IDS)
def test_without_an_image_every_weight_is_one(method):
    weights = weights_of(method, images=False)
    assert torch.equal(weights, measured().response_mask.float())


@pytest.mark.parametrize("method", WEIGHTING, ids=IDS)
def test_the_signals_are_left_alone(method):
    given = measured(method.signals())
    method.advantage_weights(given)
    again = measured(method.signals())
    assert torch.equal(given.old_log_prob, again.old_log_prob)
    assert all(torch.equal(given[signal], again[signal]) for signal in method.signals())


CHANGES = {
    "pepo": {
        "gate_alpha": 5.0,
        "temperature": 0.2,
        "schedule": "constant",
        "strength": 0.3,
        "score": "dot",
        "layers": "last",
        "normalised": True,
    },
    "vgpo": {
        "compensation": 3.0,
        "tail_start": 0.0,
        "gate_fraction": 1.0,
        "offset": "paper",
        "token_reweighting": False,
        "trajectory_reweighting": False,
        "token_low": 0.9,
        "token_high": 1.1,
        "trajectory_low": 0.6,
        "trajectory_high": 1.01,
        "recentre": True,
    },
    "vppo": {"divergence": "kl", "view": "noised", "top_fraction": 0.9, "floor": 0.5, "ceiling": 1.01},
    "tor": {
        "entropy_fraction": 0.6,
        "visual_fraction": 0.9,
        "reasoning_weight": 2.0,
        "perception_weight": 0.1,
        "other_weight": 0.3,
        "top_p": 0.5,
        "view": "noised",
    },
    "vepo": {"top_fraction": 0.6, "divergence_share": 0.0, "view": "noised"},
}
WITHOUT_WEIGHTS = {"vppo": {"entropy_coef"}}


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in CHANGES for field in CHANGES[name]])
def test_every_parameter_reaches_the_weights(name, field):
    cls = available_methods()[name]
    default, changed = cls(), cls(**{field: CHANGES[name][field]})
    # The same values for every signal, so that only the parameter can make a difference, or other ones.
    wanted = default.signals() | changed.signals()
    given = measured(wanted)
    assert not torch.allclose(default.advantage_weights(given), changed.advantage_weights(given), atol=1e-5)


def test_every_parameter_is_changed_above():
    for name, changes in CHANGES.items():
        fields = {field.name for field in dataclasses.fields(available_methods()[name])}
        assert fields == set(changes) | WITHOUT_WEIGHTS.get(name, set())


def test_pepo_grows_in_over_the_run():
    signals = {progress: weights_of(PEPO(), progress=progress) for progress in (0.0, 0.5, 1.0)}
    mask = measured().response_mask
    assert torch.equal(signals[0.0], mask.float())
    assert torch.allclose(signals[0.5], (signals[0.0] + signals[1.0]) / 2, atol=1e-6)
    given = measured(PEPO().signals())
    full = pepo.token_weights(given[SIMILARITY], given[Entropy()], mask, has_image=given.has_image)
    assert torch.allclose(signals[1.0], full)


def test_vppo_is_its_mask_times_its_factors():
    given = measured(VPPO().signals())
    dependency = sampled_k3(given.old_log_prob, given[AblatedLogProb()])
    mask = vppo.token_mask(dependency, given.response_mask, has_image=given.has_image)
    factors = vppo.trajectory_factors(dependency, given.response_mask, has_image=given.has_image)
    assert torch.equal(VPPO().advantage_weights(given), mask * factors[:, None])


def test_vgpo_is_the_product_of_its_factors():
    given = measured(VGPO().signals())
    mask = given.response_mask
    what = vgpo.visual_weights(given[VISUAL_FOCUS], mask)
    tokens = vgpo.token_factors(what, mask, has_image=given.has_image)
    rows = vgpo.trajectory_factors(what, mask, given.group_ids, has_image=given.has_image)
    assert torch.allclose(VGPO().advantage_weights(given), mask * tokens * rows[:, None])
    assert torch.allclose(VGPO(trajectory_reweighting=False).advantage_weights(given), mask * tokens)
    plain = vgpo.visual_weights(given[VISUAL_FOCUS], mask, compensation=0.0)
    rows = vgpo.trajectory_factors(plain, mask, given.group_ids, has_image=given.has_image)
    assert torch.allclose(VGPO(token_reweighting=False).advantage_weights(given), mask * rows[:, None])


def test_vepo_keeps_the_mean_over_the_kept_tokens():
    given = measured(VEPO().signals())
    weights = VEPO().advantage_weights(given)
    values = torch.rand(ROWS, COLUMNS)
    kept = weights > 0
    assert kept.sum() < given.response_mask.sum()
    over_all = (values * weights).sum() / given.response_mask.sum()
    assert torch.allclose(over_all, values[kept].mean())
    entropies = (given[Entropy()], given[Entropy(view="ablated")])
    scores = vepo.token_scores(
        given[Divergence("jsd")], (entropies[1] - entropies[0]).abs(), entropies[0], given.response_mask
    )
    mask = vepo.token_mask(scores, given.response_mask, has_image=given.has_image)
    assert torch.equal(kept, mask > 0)


def loss_inputs(method):
    given = measured(method.signals())
    return LossInputs(
        log_prob=given.old_log_prob.requires_grad_(),
        response_mask=given.response_mask,
        has_image=given.has_image,
        measured=given.measured,
        steps_done=0,
        total_steps=10,
    )


def test_vppo_punishes_surprise():
    inputs = loss_inputs(VPPO())
    (term,) = VPPO(entropy_coef=0.12).loss_terms(inputs)
    assert (term.name, term.coef, term.token_mean) == ("entropy", 0.12, True)
    assert torch.equal(term.values, -inputs.log_prob * inputs.response_mask)
    assert VPPO(entropy_coef=0.0).loss_terms(inputs) == []


def test_dvrp_pushes_one_view_away_and_draws_the_other_near():
    inputs = loss_inputs(DVRP())
    necessity, robustness = DVRP(necessity_coef=0.03, robustness_coef=0.04).loss_terms(inputs)
    assert (necessity.name, necessity.coef) == ("necessity_kl", -0.03)
    assert (robustness.name, robustness.coef) == ("robustness_kl", 0.04)
    for term, view in ((necessity, "ablated"), (robustness, "noised")):
        assert torch.equal(
            term.values, perception_values(inputs.log_prob, inputs[AblatedLogProb(view)], inputs.response_mask)
        )
    (alone,) = DVRP(necessity_coef=0.0).loss_terms(inputs)
    assert alone.name == "robustness_kl"


def test_a_signal_that_nobody_asked_for():
    with pytest.raises(KeyError, match="was not measured; a method must name it in signals"):
        PEPO().advantage_weights(measured())
