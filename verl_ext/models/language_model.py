# SPDX-License-Identifier: Apache-2.0
"""The parts of an engine's model that signals are read from, whatever FSDP or LoRA wraps around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from verl_ext.errors import ConfigurationError
from verl_ext.models.available import family_of
from verl_ext.models.family import Family


def family(model: Any) -> Family:
    """The family of an engine's model."""
    return family_of(model.config.model_type)


def decoder(model: torch.nn.Module) -> Any:
    """The text decoder, which has `layers` and a final `norm`.

    Raises:
        ConfigurationError: the model has none under the name that its family gives it.
    """
    name = family(model).decoder
    module = named_part(model, name)
    if module is None or not hasattr(module, "layers") or not hasattr(module, "norm"):
        raise ConfigurationError(
            key="actor_rollout_ref.model.path",
            value=type(model).__name__,
            remedy=f"visual similarity is read from the layers of `{name}`, which it does not have; choose a method "
            "that compares views",
        )
    return module


def head(model: torch.nn.Module) -> torch.nn.Linear:
    """The linear layer that makes logits of hidden states.

    Raises:
        ConfigurationError: the model has none, or it is not a plain linear layer (an adapter wraps it).
    """
    module = head_part(model)
    if not isinstance(module, torch.nn.Linear):
        raise ConfigurationError(
            key="actor_rollout_ref.model",
            value=type(module).__name__,
            remedy="divergences over the whole vocabulary and truncated entropies need a plain linear `lm_head`; "
            "exclude it from LoRA, or write divergence=k3",
        )
    return module


def head_part(model: torch.nn.Module) -> torch.nn.Module | None:
    """What makes logits of hidden states, wrapped or not; None if nothing has the name that the family gives."""
    return named_part(model, family(model).head)


def logit_cap(model: Any) -> float | None:
    """What the model caps its logits by, behind the head: `cap * tanh(logits / cap)`; None if it does not."""
    cap = getattr(model.config.get_text_config(), family(model).logit_cap, None)
    return None if cap is None else float(cap)


def named_part(model: torch.nn.Module, name: str) -> torch.nn.Module | None:
    """The first module whose last name is `name`; None if there is none."""
    return next((module for path, module in model.named_modules() if path.rsplit(".", 1)[-1] == name), None)


@contextmanager
def hooks(*handles: Any) -> Iterator[None]:
    """Remove the hooks on leaving."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
