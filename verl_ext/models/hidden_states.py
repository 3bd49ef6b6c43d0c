# SPDX-License-Identifier: Apache-2.0
"""The hidden states of a model while it computes them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from verl_ext.models.language_model import decoder, head, hooks


def hidden_states_to(
    use: Callable[[Tensor], None], model: torch.nn.Module, every_layer: bool
) -> AbstractContextManager[None]:
    """While open, give `use` the (..., D) states of each layer of the text decoder, in order.

    Those are the embeddings, each layer's output, and the last one's after the final norm; or the last alone.
    """
    text = decoder(model)

    def use_output(_module: torch.nn.Module, _args: Any, output: Any) -> None:
        use(output[0] if isinstance(output, tuple) else output)

    def use_input(_module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        use(args[0] if args else kwargs["hidden_states"])

    handles = [text.norm.register_forward_hook(use_output)]
    if every_layer:
        handles.append(text.layers[0].register_forward_pre_hook(use_input, with_kwargs=True))
        handles += [layer.register_forward_hook(use_output) for layer in text.layers[:-1]]
    return hooks(*handles)


def head_inputs_to(
    use: Callable[[torch.nn.Linear, Tensor], None], model: torch.nn.Module
) -> AbstractContextManager[None]:
    """While open, call `use(head, states)` with the (positions, D) states that the head is given.

    Called before the head runs, when FSDP has gathered its weight.
    """

    def read(lm_head: Any, args: tuple[Tensor, ...]) -> None:
        use(lm_head, args[0].flatten(0, -2))

    return hooks(head(model).register_forward_pre_hook(read))
