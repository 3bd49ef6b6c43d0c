# SPDX-License-Identifier: Apache-2.0
"""The parts of Megatron's models that signals are read from, whatever wraps around them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from verl_ext.models.language_model import hooks


def unwrapped(model: Any) -> Any:
    """A model chunk without what Megatron wraps around it for mixed precision and data parallelism."""
    while hasattr(model, "module"):
        model = model.module
    return model


def language_model(model: Any) -> Any:
    """The text decoder's GPT model: the `language_model` of a vision-language model, or the model itself."""
    chunk = unwrapped(model)
    return getattr(chunk, "language_model", chunk)


def hidden_states_to(use: Callable[[Tensor, bool], None], model: Any) -> AbstractContextManager[None]:
    """While open, call `use(states, last)` with the (places, columns, D) states of each layer of this model chunk.

    Those are the embeddings where the chunk has them, the outputs of its layers except the very last layer's, and the
    last layer's after the final norm, `last`, where the chunk has that.
    """
    text = language_model(model)
    block, layers = text.decoder, text.config.num_layers

    def use_input(_block: torch.nn.Module, args: Any, kwargs: Any) -> None:
        use(args[0] if args else kwargs["hidden_states"], False)

    def use_layer(_layer: torch.nn.Module, _args: Any, output: Any) -> None:
        use(output[0] if isinstance(output, tuple) else output, False)

    def use_norm(_norm: torch.nn.Module, _args: Any, output: Tensor) -> None:
        use(output, True)

    handles = [layer.register_forward_hook(use_layer) for layer in block.layers if layer.layer_number < layers]
    if text.pre_process:
        handles.append(block.register_forward_pre_hook(use_input, with_kwargs=True))
    if block.final_layernorm is not None:
        handles.append(block.final_layernorm.register_forward_hook(use_norm))
    return hooks(*handles)


class PackSeen:
    """The padded offsets of the pack that a model chunk runs; None for a padded batch."""

    def __init__(self) -> None:
        self.padded_offsets: Tensor | None = None

    def watching(self, model: Any) -> AbstractContextManager[None]:
        """While open, note them as the decoder begins."""

        def note(_block: torch.nn.Module, _args: Any, kwargs: Any) -> None:
            pack = kwargs.get("packed_seq_params")
            self.padded_offsets = None if pack is None else pack.cu_seqlens_q_padded

        return hooks(language_model(model).decoder.register_forward_pre_hook(note, with_kwargs=True))
