# SPDX-License-Identifier: Apache-2.0
"""A loss that is NaN or infinite, inside the loss function that the worker gives to verl."""

import inspect

import pytest
import torch
from tensordict import NonTensorData, TensorDict
from torch.nested import as_nested_tensor
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

from verl_ext.supervision.broken_numbers import BrokenNumberError, sound_loss
from verl_ext.vocabulary import STEPS_DONE
from verl_ext.worker.loss import loss_with_terms


def logits_with(value):
    """Logits of three tokens, one of which is broken, and their log-probabilities."""
    logits = torch.zeros(3, 4)
    logits[1, 2] = value
    logits.requires_grad_()
    return logits, torch.log_softmax(logits, dim=-1)[:, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_forward_pass_has_no_sound_gradient_so_verl_drops_the_step(value):
    logits, log_probs = logits_with(value)
    loss, _ = sound_loss(log_probs.sum(), {}, log_probs, policy="skip", where=lambda: "step 1")
    loss.backward()
    assert loss == 0.0
    assert not torch.isfinite(logits.grad.norm())
    assert "torch.isfinite(grad_norm)" in inspect.getsource(FSDPEngine.optimizer_step)


def attempt(value, policy, last=-3.0):
    """One micro-batch of two prompts whose policy loss is `value` times the log-probabilities."""
    log_probs = torch.tensor([-1.0, -2.0, last], requires_grad=True)
    nested = as_nested_tensor([log_probs[:2], log_probs[2:]], layout=torch.jagged)
    data = TensorDict({"uid": ["first", "second"]}, batch_size=2)
    data[STEPS_DONE] = NonTensorData(6, batch_size=[2])

    def base_loss(model_output, data, dp_group):
        return model_output["log_probs"].values().sum() * value, {"pg_loss": 0.0}

    loss, metrics = loss_with_terms(
        {"log_probs": nested}, data, base_loss=base_loss, config=None, methods=[], on_broken=policy
    )
    loss.backward()
    return loss, metrics, log_probs.grad


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_stop_names_step_prompts_and_part(value):
    message = r"step 7, one of the prompts first, second: the loss is NaN or infinite \(verl's policy loss\); the opt"
    with pytest.raises(BrokenNumberError, match=message):
        attempt(value, "stop")


def test_the_prompt_with_the_broken_log_probability_is_named_alone():
    with pytest.raises(BrokenNumberError, match=r"step 7, prompts second: the loss is NaN"):
        attempt(1.0, "stop", last=float("nan"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_skip_leaves_no_gradient(value):
    loss, metrics, gradient = attempt(value, "skip")
    assert loss == 0.0
    assert gradient.tolist() == [0.0, 0.0, 0.0]
    assert metrics["perception/broken_losses"] == 1.0


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_sound_loss_is_left_alone(policy):
    loss, metrics, gradient = attempt(0.5, policy)
    assert loss == -3.0
    assert gradient.tolist() == [0.5, 0.5, 0.5]
    assert metrics.get("perception/broken_losses") == (0.0 if policy == "skip" else None)
