# SPDX-License-Identifier: Apache-2.0
"""Text positions for layers that are given rotary ones: attention to packed sequences reads from them its bounds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from verl_ext.models.language_model import decoder, family


def tell_text_positions(model: torch.nn.Module) -> None:
    """Have every layer of the decoder get row 0 of the positions, if those of its family do not.

    Args:
        model: an engine's.
    """
    if not family(model).layers_get_rotary_positions:
        return
    text = decoder(model)
    kept: list[Tensor] = []

    def keep(_text: torch.nn.Module, _args: Any, given: dict[str, Any]) -> None:
        kept[:] = [given["position_ids"][0]]

    def tell(_layer: torch.nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**given, "position_ids": kept[0]}

    text.register_forward_pre_hook(keep, with_kwargs=True)
    for layer in text.layers:
        layer.register_forward_pre_hook(tell, with_kwargs=True)
