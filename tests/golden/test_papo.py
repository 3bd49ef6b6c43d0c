# SPDX-License-Identifier: Apache-2.0
"""PAPO against vectors produced by the official code."""

import pytest
import torch
from support.golden import GRADIENT, LOSS, dual_clip, load, token_mean

from verl_ext.methods.papo import coefficient_schedule, double_entropy_loss, perception_loss
from verl_ext.signals import sampled_k3


def full_loss(golden, config, log_prob):
    mask, ablated = golden["in_response_mask"], golden["in_aug_log_probs"]
    clip = {"low": config["clip_ratio_low"], "high": config["clip_ratio_high"], "dual": config["clip_ratio_dual"]}
    loss = token_mean(dual_clip(log_prob, golden["in_old_log_probs"], golden["in_advantages"], **clip), mask)
    if not config.get("disable_kl", False):
        loss = loss + config["kl_coef"] * token_mean(sampled_k3(log_prob, golden["in_ref_log_probs"]), mask)
    loss = loss + perception_loss(log_prob, ablated, mask, coef=config["kl_prcp_coef"])
    return loss + double_entropy_loss(
        log_prob,
        ablated,
        mask,
        coef=config["ori_entropy_loss_coef"] if config.get("use_ori_entropy_loss", False) else 0.0,
        ablated_coef=config["aug_entropy_loss_coef"] if config.get("use_aug_entropy_loss", False) else 0.0,
    )


def test_k3_value_and_gradient():
    golden, _ = load("papo_k3")
    log_prob = golden["in_log_probs"].requires_grad_()
    value = sampled_k3(log_prob, golden["in_aug_log_probs"])
    value.sum().backward()
    torch.testing.assert_close(value, golden["out_k3"], **LOSS)
    torch.testing.assert_close(log_prob.grad, golden["out_grad"], **GRADIENT)


def test_annealing():
    golden, meta = load("papo_annealing")
    expected = golden["out_coef"].tolist()
    got = [
        coefficient_schedule(step, start=meta["start"], end=meta["end"], total_steps=meta["total_steps"])
        for step in range(len(expected))
    ]
    assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["papo_g_3b", "papo_d"])
def test_full_loss_and_gradient(name):
    golden, meta = load(name)
    log_prob = golden["in_log_probs"].requires_grad_()
    loss = full_loss(golden, meta["config"], log_prob)
    loss.backward()
    torch.testing.assert_close(loss, golden["out_loss_per_micro"][0], **LOSS)
    torch.testing.assert_close(log_prob.grad, golden["out_grad_log_probs"], **GRADIENT)


@pytest.mark.parametrize("name", ["papo_g_3b", "papo_d"])
def test_perception_term_alone(name):
    golden, _ = load(name)
    mask = golden["in_response_mask"]
    term = perception_loss(golden["in_log_probs"], golden["in_aug_log_probs"], mask, coef=1.0)
    torch.testing.assert_close(term, golden["out_last_micro.kl_prcp_loss"], **LOSS)


def test_entropy_terms_alone():
    golden, _ = load("papo_d")
    inputs = golden["in_log_probs"], golden["in_aug_log_probs"], golden["in_response_mask"]
    original = double_entropy_loss(*inputs, coef=1.0, ablated_coef=0.0)
    ablated = double_entropy_loss(*inputs, coef=0.0, ablated_coef=1.0)
    torch.testing.assert_close(original, golden["out_last_micro.ori_entropy_loss"], **LOSS)
    torch.testing.assert_close(ablated, golden["out_last_micro.aug_entropy_loss"], **LOSS)
