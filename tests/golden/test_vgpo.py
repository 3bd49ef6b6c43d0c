# SPDX-License-Identifier: Apache-2.0
"""VGPO against vectors produced by the official code."""

import pytest
import torch
from support.golden import GRADIENT, LOSS, WEIGHT, dual_clip, load, token_mean

from verl_ext.methods.vgpo import compensation_ramp, token_factors, trajectory_factors, visual_weights

CASES = ["vgpo_default_16x8", "vgpo_intra_only"]


def focus_of(golden, meta):
    """Cosine between the hidden state at each response token and the mean of those at the image."""
    hidden, prompt = golden["in_hidden"].double(), meta["prompt_length"]
    image = (golden["in_input_ids"] == meta["image_token_id"]).double()
    centre = torch.einsum("bl,bld->bd", image, hidden) / image.sum(-1, keepdim=True)
    return torch.cosine_similarity(hidden[:, prompt:], centre[:, None], dim=-1).float()


def images(golden, meta):
    return (golden["in_input_ids"] == meta["image_token_id"]).any(-1)


def weights_of(golden, meta):
    config = meta["config"]
    return visual_weights(
        focus_of(golden, meta),
        golden["in_response_mask"],
        compensation=config["visual_compensation_strength"],
        tail_start=config["gated_visual_compensation_start_ratio"],
        gate_fraction=config["visual_attention_threshold"],
    )


def factors_of(golden, meta, weights):
    mask, has_image = golden["in_response_mask"], images(golden, meta)
    factors = token_factors(weights, mask, has_image=has_image)
    if meta["config"]["use_inter_trajectory_reweighting"]:
        factors = factors * trajectory_factors(weights, mask, golden["in_uid"], has_image=has_image)[:, None]
    return factors


def minmax(values, valid):
    low = values.masked_fill(~valid, torch.inf).amin(-1, keepdim=True)
    high = values.masked_fill(~valid, -torch.inf).amax(-1, keepdim=True)
    return ((values - low) / (high - low)).masked_fill(~valid, 0.0)


@pytest.mark.parametrize("name", CASES)
def test_every_row_has_an_image(name):
    golden, meta = load(name)
    assert images(golden, meta).all()


@pytest.mark.parametrize("name", CASES)
def test_uncompensated_weights(name):
    golden, meta = load(name)
    valid = golden["in_response_mask"].bool()
    weights = visual_weights(focus_of(golden, meta), golden["in_response_mask"], compensation=0.0)
    torch.testing.assert_close(weights, minmax(golden["out_raw_weights"], valid), **WEIGHT)


def test_visual_weights():
    golden, meta = load("vgpo_default_16x8")
    torch.testing.assert_close(weights_of(golden, meta), golden["out_intra_weights_hat"], **WEIGHT)


def test_defaults_are_those_of_the_release():
    golden, meta = load("vgpo_default_16x8")
    weights = visual_weights(focus_of(golden, meta), golden["in_response_mask"])
    torch.testing.assert_close(weights, golden["out_intra_weights_hat"], **WEIGHT)


def test_trajectory_factors():
    golden, meta = load("vgpo_default_16x8")
    factors = trajectory_factors(
        golden["out_intra_weights_hat"],
        golden["in_response_mask"],
        golden["in_uid"],
        has_image=images(golden, meta),
    )
    torch.testing.assert_close(factors, golden["out_inter_factor"], **WEIGHT)
    assert set(golden["in_uid"].bincount().tolist()) == {meta["rollout_n_used"]}


@pytest.mark.parametrize("name", CASES)
def test_total_factor(name):
    golden, meta = load(name)
    factors = factors_of(golden, meta, weights_of(golden, meta))
    torch.testing.assert_close(factors, golden["out_total_factor"], **WEIGHT)
    torch.testing.assert_close(factors * golden["in_advantages"], golden["out_final_advantages"], **WEIGHT)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient(name):
    golden, meta = load(name)
    log_prob = golden["in_log_probs"].requires_grad_()
    advantages = golden["in_advantages"] * factors_of(golden, meta, weights_of(golden, meta))
    old, mask = golden["in_old_log_probs"], golden["in_response_mask"]
    loss = token_mean(dual_clip(log_prob, old, advantages, high=meta["config"]["clip_ratio_high"]), mask)
    loss.backward()
    torch.testing.assert_close(loss.detach(), golden["out_pg_loss_per_micro"][0], **LOSS)
    torch.testing.assert_close(log_prob.grad, golden["out_grad_log_probs"], **GRADIENT)


@pytest.mark.parametrize(
    ("mask", "schedule", "expected"),
    [
        ("in_mask", "linear", "out_linear"),
        ("in_mask", "exponential", "out_exponential"),
        ("in_mask", "step", "out_step_function"),
        ("in_mask_hole", "linear", "out_linear_with_hole"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compensation(mask, schedule, expected, dtype):
    golden, meta = load("vgpo_compensation")
    ramp = compensation_ramp(golden[mask], meta["strength"], schedule, dtype=dtype)
    torch.testing.assert_close(ramp, golden[expected].to(dtype), atol=1e-7, rtol=0.0)
