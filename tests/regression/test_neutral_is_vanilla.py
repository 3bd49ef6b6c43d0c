# SPDX-License-Identifier: Apache-2.0
"""A method whose parameters are neutral trains exactly as verl's GRPO does, bit for bit, on the same batch.

That logits of response tokens alone give the same up to the order of sums is shown in `test_response_logits.py`.
"""

from functools import cache

import pytest
import torch
from support import batches, tiny, workers
from support.configuration import configuration
from support.neutral import NEUTRAL, WEIGHTING
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested, response_to_nested

from verl_ext.configuration.section import parse
from verl_ext.methods.base import RolloutSignals
from verl_ext.methods.credit import combined, method_weights

pytestmark = pytest.mark.usefixtures("process_group")

# PAPO's recipe has a reference KL and another clip; the comparison is about the method, so both sides use GRPO's.
PAPO = [
    "+perception=papo_g",
    "recipe=grpo",
]
STEP = {"perception_step": 3, "perception_steps_done": 2, "perception_total_steps": 10}


@pytest.fixture(scope="module")
def vlm():
    return tiny.model(torch.float32)


@pytest.fixture(scope="module")
def vanilla():
    worker = workers.build("algorithm.adv_estimator=grpo")
    from verl_ext.models.vision_tower import fit_vision_tower

    # Without it verl 0.9 cannot run a micro-batch without images at all; it changes no number.
    fit_vision_tower(worker.actor.engine.module)
    return worker


@pytest.fixture(scope="module")
def expected(vanilla, vlm):
    """What vanilla verl computes for the rows with their images, and without any."""
    return {
        images: loss_and_gradients(vanilla, batches.batch(batches.rows(vlm, images=images), calculate_entropy=False))
        for images in (True, False)
    }


@cache
def build(*overrides):
    """A perception worker whose logits, like vanilla verl's, are those of all tokens: the order of sums is the same."""
    return workers.build(*overrides, "perception.response_only_logits=False", "perception.share_prompts=False")


def loss_and_gradients(worker, data):
    """Loss of the batch and every parameter's gradient, without a step of the optimiser."""
    actor = worker.actor
    tu.assign_non_tensor(
        data,
        use_dynamic_bsz=False,
        use_fused_kernels=False,
        use_remove_padding=False,
        micro_batch_size_per_gpu=4,
        global_batch_size=len(data),
    )
    with actor.engine.train_mode():
        actor.engine.optimizer_zero_grad()
        output = actor.engine.forward_backward_batch(data, actor.loss_fn, forward_only=False)
        gradients = {
            name: parameter.grad.full_tensor().clone()
            for name, parameter in actor.engine.module.named_parameters()
            if parameter.grad is not None
        }
    return sum(output["loss"]), gradients


def with_signals(worker, rows):
    """A training batch with the fields that measuring adds."""
    data = batches.batch(rows, calculate_entropy=False, **STEP)
    for name, value in workers.measured(worker, rows, **STEP).items():
        data[name] = value
    return data


def assert_same(a, b):
    assert a[0] == b[0]
    assert a[1].keys() == b[1].keys()
    assert all(torch.equal(a[1][name], b[1][name]) for name in a[1])
    assert any(gradient.abs().max() > 0 for gradient in a[1].values())


def largest_difference(a, b):
    return max((a[1][name] - b[1][name]).abs().max().item() for name in a[1])


@pytest.mark.parametrize("images", [True, False], ids=["images", "text only"])
def test_papo_with_coefficient_zero_is_grpo(expected, vlm, images):
    rows = batches.rows(vlm, images=images)
    neutral = build(*PAPO, "perception.papo.coef=0")
    assert_same(loss_and_gradients(neutral, with_signals(neutral, rows)), expected[images])


def test_papo_without_images_is_grpo(expected, vlm):
    rows = batches.rows(vlm, images=False)
    papo = build(*PAPO)
    assert_same(loss_and_gradients(papo, with_signals(papo, rows)), expected[False])


@pytest.mark.parametrize(
    "overrides",
    [
        ["+perception=pgpo"],
        ["+perception=pepo_g"],
        ["+perception=vgpo"],
        ["+perception=tor"],
        ["+perception=vepo"],
        ["+perception=vppo", "perception.vppo.entropy_coef=0"],
        ["+perception=dvrp", "perception.dvrp.necessity_coef=0", "perception.dvrp.robustness_coef=0"],
    ],
    ids=lambda overrides: overrides[0].removeprefix("+perception="),
)
def test_without_a_loss_term_the_loss_is_verls(expected, vlm, overrides):
    rows = batches.rows(vlm)
    method = build(*overrides, "recipe=grpo")
    assert_same(loss_and_gradients(method, with_signals(method, rows)), expected[True])


def with_weighted_advantages(worker, rows, methods):
    """A training batch whose advantages the methods have weighted by what the worker measured."""
    measured = workers.measured(worker, rows, **{**STEP, "calculate_entropy": True})
    data = with_signals(worker, rows)
    wanted = frozenset().union(*(method.signals() for method in methods))
    entropy = response_from_nested(measured["entropy"], data["response_mask"])
    fields = {**measured, "entropy": entropy}
    signals = RolloutSignals(
        response_mask=data["response_mask"].to_padded_tensor(0).bool(),
        has_image=measured["has_image"],
        group_ids=torch.arange(len(rows)) // 2,
        old_log_prob=data["old_log_probs"].to_padded_tensor(0.0),
        measured={signal: fields[signal.field].to_padded_tensor(0.0) for signal in wanted},
        progress=0.5,
    )
    weights = combined(method_weights(methods, signals))
    if weights is not None:
        weighted = data["advantages"].to_padded_tensor(0.0) * weights
        data["advantages"] = response_to_nested(weighted, data["response_mask"])
    return data


@pytest.mark.parametrize("group", WEIGHTING)
@pytest.mark.parametrize("neutral", [True, False], ids=["neutral", "acting"])
def test_weights_change_the_gradient_unless_they_are_neutral(expected, vlm, group, neutral):
    rows = batches.rows(vlm)
    no_term = ["perception.vppo.entropy_coef=0"] if group == "vppo" else []
    overrides = [f"+perception={group}", "recipe=grpo", *no_term, *(NEUTRAL[group] if neutral else [])]
    worker = build(*overrides)
    methods = parse(configuration(*overrides).perception).methods
    got = loss_and_gradients(worker, with_weighted_advantages(worker, rows, methods))
    if neutral:
        assert_same(got, expected[True])
    else:
        assert got[0] != expected[True][0]
        assert largest_difference(got, expected[True]) > 1e-6


@pytest.mark.parametrize("group", ["papo_g", "vppo", "dvrp"])
def test_a_loss_term_changes_the_gradient(expected, vlm, group):
    rows = batches.rows(vlm)
    method = build(f"+perception={group}", "recipe=grpo")
    changed = loss_and_gradients(method, with_signals(method, rows))
    assert changed[0] != expected[True][0]
    assert largest_difference(changed, expected[True]) > 1e-6


def test_the_two_terms_of_dvrp_pull_apart(expected, vlm):
    """The masked view is pushed away and the noised one pulled near: equal views and coefficients cancel."""
    rows = batches.rows(vlm)
    same = [f"perception.views.noised.{key}" for key in ("kind=random_patch", "scope=prompt")]
    worker = build("+perception=dvrp", "recipe=grpo", *same, "+perception.views.noised.probability=0.6")
    data = with_signals(worker, rows)
    assert torch.equal(data["ablated_log_prob"].values(), data["ablated_log_prob_noised"].values())
    assert largest_difference(loss_and_gradients(worker, data), expected[True]) < 1e-6


def test_a_coefficient_changes_the_gradient(expected, vlm):
    rows = batches.rows(vlm)
    papo = build(*PAPO, "perception.papo.coef=0.02")
    changed = loss_and_gradients(papo, with_signals(papo, rows))
    assert changed[0] != expected[True][0]
    assert largest_difference(changed, expected[True]) > 1e-6


def test_a_larger_coefficient_changes_it_more(expected, vlm):
    rows = batches.rows(vlm)
    small, large = (
        largest_difference(loss_and_gradients(worker, with_signals(worker, rows)), expected[True])
        for worker in (build(*PAPO, f"perception.papo.coef={coef}") for coef in (0.01, 0.04))
    )
    assert large == pytest.approx(4 * small, rel=1e-3)


def test_a_fading_coefficient_is_a_smaller_one(vlm):
    """A fifth of the run is done, which is half of the 0.4 over which the influence fades."""
    rows = batches.rows(vlm)
    fading = build(*PAPO, "perception.papo.coef=0.04", "perception.fade_over=0.4")
    half = build(*PAPO, "perception.papo.coef=0.02")
    results = [loss_and_gradients(worker, with_signals(worker, rows)) for worker in (fading, half)]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert largest_difference(*results) < 1e-7
