# SPDX-License-Identifier: Apache-2.0
"""VPPO against vectors produced by the official code."""

import numpy as np
import pytest
import torch
from support.golden import GRADIENT, LOSS, WEIGHT, dual_clip, load, token_mean

from verl_ext.methods import rows
from verl_ext.methods.vppo import token_mask, top_count, trajectory_factors
from verl_ext.signals import sampled_k3

FRACTIONS = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.9]
CASES = ["vppo_default", "vppo_tgf_only"]


def dependency_of(golden):
    return sampled_k3(golden["in_old_log_probs"], golden["in_aug_log_probs"])


def mask_of(golden, config):
    mask = golden["in_response_mask"]
    return token_mask(
        dependency_of(golden),
        mask,
        has_image=torch.ones(len(mask), dtype=torch.bool),
        top_fraction=config["top_p_perception_tokens"],
    )


def factors_of(golden, config):
    """The configurations without shaping leave the advantages alone."""
    mask = golden["in_response_mask"]
    if not config["use_advantage_shaping"]:
        return torch.ones(len(mask))
    has_image = torch.ones(len(mask), dtype=torch.bool)
    return trajectory_factors(dependency_of(golden), mask, has_image=has_image, floor=config["advantage_scaling_min"])


@pytest.mark.parametrize("name", CASES)
def test_token_mask(name):
    golden, meta = load(name)
    assert torch.equal(mask_of(golden, meta["config"]), golden["out_loss_token_mask"])


@pytest.mark.parametrize("name", CASES)
def test_trajectory_factors(name):
    golden, meta = load(name)
    factors = factors_of(golden, meta["config"])
    torch.testing.assert_close(factors, golden["out_scaling_factor"], **WEIGHT)
    torch.testing.assert_close(factors[:, None] * golden["in_advantages"], golden["out_shaped_advantages"], **WEIGHT)


def test_range_of_the_factors():
    golden, meta = load("vppo_default")
    mask = golden["in_response_mask"]
    means = rows.row_mean(rows.prepared(dependency_of(golden), mask != 0), mask != 0)
    torch.testing.assert_close(means.min()[None], golden["out_global_min"], **LOSS)
    torch.testing.assert_close(means.max()[None], golden["out_global_max"], **LOSS)
    torch.testing.assert_close(
        factors_of(golden, meta["config"]).max()[None], golden["out_dynamic_scaling_max"], **LOSS
    )


def test_defaults_are_those_of_the_release():
    golden, _ = load("vppo_default")
    mask, has_image = golden["in_response_mask"], torch.ones(8, dtype=torch.bool)
    dependency = dependency_of(golden)
    assert torch.equal(token_mask(dependency, mask, has_image=has_image), golden["out_loss_token_mask"])
    torch.testing.assert_close(
        trajectory_factors(dependency, mask, has_image=has_image), golden["out_scaling_factor"], **WEIGHT
    )


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient(name):
    golden, meta = load(name)
    config, mask = meta["config"], golden["in_response_mask"]
    log_prob = golden["in_log_probs"].requires_grad_()
    advantages = factors_of(golden, config)[:, None] * golden["in_advantages"]
    clip = {"low": config["clip_ratio_low"], "high": config["clip_ratio_high"], "dual": config["clip_ratio_dual"]}
    values = dual_clip(log_prob, golden["in_old_log_probs"], advantages, **clip)
    loss = token_mean(values * mask_of(golden, config), mask)
    penalty = config["entropy_penalty_coef"] if config["use_entropy_penalty"] else 0.0
    (loss - penalty * token_mean(log_prob, mask)).backward()
    torch.testing.assert_close(loss.detach(), golden["out_pg_loss_per_micro"][0], **LOSS)
    torch.testing.assert_close(log_prob.grad, golden["out_grad_log_probs"], **GRADIENT)


@pytest.mark.parametrize("top_fraction", FRACTIONS)
def test_top_count(top_fraction):
    golden, _ = load("vppo_topk_count")
    expected = golden[f"out_p{top_fraction}"].long()
    assert torch.equal(top_count(torch.arange(len(expected)), top_fraction), expected)


def test_every_array_of_top_counts_is_covered():
    golden, _ = load("vppo_topk_count")
    assert sorted(golden) == [f"out_p{fraction}" for fraction in FRACTIONS]


def test_rounding_to_float32_is_visible():
    """Otherwise the test above could not tell it from double precision."""
    golden, _ = load("vppo_topk_count")
    count = np.arange(4097)
    differing = [int((np.ceil(count * p) != golden[f"out_p{p}"].numpy()).sum()) for p in (0.3, 0.6)]
    assert differing == [166, 336]
