# SPDX-License-Identifier: Apache-2.0
"""PEPO against the official code.

`hidden[layer, b, l]` and `logits[b, l]` cover whole sequences of which the last `logits_to_keep` positions are kept.
The similarity of kept token j is read at the token, its entropy one position earlier, where it was predicted.
"""

import pytest
import torch
from support.golden import GRADIENT, LOSS, WEIGHT, load

from verl_ext.methods.pepo import schedule, token_weights
from verl_ext.signals import sampled_k3, truncated_entropy, visual_similarity

SCORE = {"atol": 2e-6, "rtol": 1e-5}
CASES = ["pepo_default", "pepo_length1_and_full"]


def image_mask(golden, meta):
    return golden["in_input_ids"] == meta["image_token_id"]


def kept_positions(golden):
    batch, length = golden["in_input_ids"].shape
    kept = golden["in_completion_mask"].shape[1]
    return torch.arange(length - kept, length).expand(batch, kept)


def predicting_logits(golden):
    """(B, K, V) the distributions that the kept tokens were predicted by."""
    kept = golden["in_completion_mask"].shape[1]
    return golden["in_logits"][:, -kept - 1 : -1]


def log_probs(golden, logits):
    kept = golden["in_completion_mask"].shape[1]
    tokens = golden["in_input_ids"][:, -kept:].long()
    return logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)


def similarity(golden, meta):
    return visual_similarity(iter(golden["in_hidden"]), image_mask(golden, meta), kept_positions(golden))


def weights(golden, meta, vision_scores, entropy):
    return token_weights(
        vision_scores,
        entropy,
        golden["in_completion_mask"],
        has_image=image_mask(golden, meta).any(-1),
        gate_alpha=meta["gate_alpha"],
        temperature=meta.get("gate_temperature", 1.8),
    )


@pytest.mark.parametrize("case", CASES)
def test_vision_scores(case):
    golden, meta = load(case)
    assert meta["score"] == "cosine"
    torch.testing.assert_close(similarity(golden, meta), golden["out_vision_scores"], **SCORE)


@pytest.mark.parametrize("case", CASES)
def test_log_probs_and_entropy_come_from_one_position_earlier(case):
    golden, _ = load(case)
    logits = predicting_logits(golden)
    torch.testing.assert_close(log_probs(golden, logits), golden["out_log_probs"], **SCORE)
    torch.testing.assert_close(truncated_entropy(logits, top_p=1.0), golden["out_entropy"], **SCORE)


@pytest.mark.parametrize("case", CASES)
def test_weights_from_the_official_signals(case):
    golden, meta = load(case)
    ours = weights(golden, meta, golden["out_vision_scores"], golden["out_entropy"])
    torch.testing.assert_close(ours, golden["out_weights"], **WEIGHT)


@pytest.mark.parametrize("case", CASES)
def test_weights_from_hidden_states_and_logits(case):
    golden, meta = load(case)
    entropy = truncated_entropy(predicting_logits(golden), top_p=1.0, temperature=meta["sampling_temperature"])
    torch.testing.assert_close(
        weights(golden, meta, similarity(golden, meta), entropy), golden["out_weights"], **WEIGHT
    )


def test_defaults_are_the_released_scripts():
    golden, meta = load("pepo_default")
    ours = token_weights(
        golden["out_vision_scores"],
        golden["out_entropy"],
        golden["in_completion_mask"],
        has_image=image_mask(golden, meta).any(-1),
    )
    torch.testing.assert_close(ours, golden["out_weights"], **WEIGHT)


def test_a_shift_by_one_position_is_seen():
    golden, meta = load("pepo_default")
    kept = golden["in_completion_mask"].shape[1]
    shifted_entropy = truncated_entropy(golden["in_logits"][:, -kept:], top_p=1.0)
    ours = weights(golden, meta, golden["out_vision_scores"], shifted_entropy)
    assert (ours - golden["out_weights"]).abs().max() > 10 * WEIGHT["atol"]
    earlier = visual_similarity(iter(golden["in_hidden"]), image_mask(golden, meta), kept_positions(golden) - 1)
    ours = weights(golden, meta, earlier, golden["out_entropy"])
    assert (ours - golden["out_weights"]).abs().max() > 10 * WEIGHT["atol"]


def loss_and_gradient(golden, meta, progress):
    """Loss `grpo` (mean over responses of their token means) on policy, and its gradient in the kept logits.

    The weights are detached. The recorded gradient is not: the official gate keeps the graph of the entropy. On policy
    the tokens of a response share one loss and its weights sum to a constant, so the leak cancels; the record gives
    its size in the hidden states.
    """
    logits = predicting_logits(golden).clone().requires_grad_()
    mask = golden["in_completion_mask"]
    token_weight = schedule(
        weights(golden, meta, similarity(golden, meta), truncated_entropy(logits, top_p=1.0)), mask, progress
    )
    log_prob = log_probs(golden, logits)
    policy_loss = -(log_prob - log_prob.detach()).exp() * golden["in_advantages"][:, None]
    token_loss = policy_loss * token_weight + meta["beta"] * sampled_k3(log_prob, golden["in_ref_log_probs"])
    loss = ((token_loss * mask).sum(-1) / mask.sum(-1).clamp(min=1)).mean()
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


# The record gives step 50 and not the number of steps. On policy the loss does not depend on it, the gradient does.
MAX_STEPS = 100


def test_loss_and_gradient_at_step_50():
    golden, meta = load("pepo_loss_grpo_step50_onpolicy")
    assert meta["off_policy"] is False
    loss, gradient = loss_and_gradient(golden, meta, meta["config"]["step"] / MAX_STEPS)
    torch.testing.assert_close(loss, golden["out_loss"], **LOSS)
    torch.testing.assert_close(gradient, golden["out_grad_logits"], **GRADIENT)


def test_what_the_missing_stop_gradient_leaks_is_far_below_the_tolerance():
    golden, meta = load("pepo_loss_grpo_step50_onpolicy")
    leak = golden["out_grad_hidden_absmax_per_layer"].max().item()
    assert leak == pytest.approx(meta["grad_leak_into_hidden_absmax"], rel=1e-6)
    assert leak < 1e-10
    _, gradient = loss_and_gradient(golden, meta, meta["config"]["step"] / MAX_STEPS)
    # The rest is rounding: a few units in the last place of the largest entry.
    assert (gradient - golden["out_grad_logits"]).abs().max() < 4 * torch.finfo(
        torch.float32
    ).eps * gradient.abs().max()


@pytest.mark.parametrize("max_steps", [50, 80, 120, 200])
def test_the_gradient_tells_the_number_of_steps(max_steps):
    golden, meta = load("pepo_loss_grpo_step50_onpolicy")
    loss, gradient = loss_and_gradient(golden, meta, meta["config"]["step"] / max_steps)
    torch.testing.assert_close(loss, golden["out_loss"], **LOSS)
    assert (gradient - golden["out_grad_logits"]).abs().max() > 1e-5
