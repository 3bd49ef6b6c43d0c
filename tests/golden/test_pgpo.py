# SPDX-License-Identifier: Apache-2.0
"""PGPO against the independent float64 reference."""

import pytest
import torch
from support.golden import WEIGHT, load

from verl_ext.methods.pgpo import token_weights
from verl_ext.signals import sampled_k3


def weights_of(golden, meta, dtype):
    params = meta["params"]
    dependency = sampled_k3(golden["in_old_log_probs"].to(dtype), golden["in_blind_log_probs"].to(dtype))
    return token_weights(
        dependency,
        golden["in_response_mask"],
        threshold=params["tau"],
        boost=params["beta"],
        threshold_mode=params["mode"],
        low_weight_floor=params["floor"],
        conserve_mass=params["mass"],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_default(dtype):
    golden, meta = load("pgpo_default")
    weights = weights_of(golden, meta, dtype)
    torch.testing.assert_close(weights, golden["out_weights"].to(dtype), **WEIGHT)
    torch.testing.assert_close(
        weights * golden["in_advantages"].to(dtype), golden["out_advantages"].to(dtype), **WEIGHT
    )


def test_defaults_are_the_papers():
    golden, _ = load("pgpo_default")
    weights = token_weights(golden["out_S"], golden["in_response_mask"])
    torch.testing.assert_close(weights, golden["out_weights"], atol=1e-9, rtol=0.0)


def test_visual_dependency():
    golden, _ = load("pgpo_default")
    valid = golden["in_response_mask"].bool()
    dependency = sampled_k3(golden["in_old_log_probs"], golden["in_blind_log_probs"])
    torch.testing.assert_close(dependency[valid], golden["out_S"][valid], atol=1e-12, rtol=1e-12)


def test_all_equal():
    golden, meta = load("pgpo_all_equal")
    weights = weights_of(golden, meta, torch.float64)
    assert torch.equal(weights, golden["out_weights"])
