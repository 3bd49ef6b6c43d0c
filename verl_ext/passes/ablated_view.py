# SPDX-License-Identifier: Apache-2.0
"""The forward pass over an image-ablated view, inside verl's own engine.

Where other pixels take the place of an image, each micro-batch is ablated just before the engine runs it, so that no
second set of images exists beyond one micro-batch. A view without image tokens is cut into micro-batches by its own
lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict

from verl_ext.models.reused_tower import run_own_tower
from verl_ext.models.vision_tower import skip_vision_tower
from verl_ext.passes.ablated_batch import Ablation

INPUT_FIELDS = ("input_ids", "position_ids", "prompts", "responses", "response_mask", "loss_mask")
"""All that the ablated pass fetches: the images are those that the clean pass has just fetched."""


@dataclass(frozen=True)
class AblatedView:
    """One view at one moment of the run.

    Attributes:
        ablation: what is done to the images.
        step: training step, for the seed of masks and noise.
        progress: share of the run that is done, in [0, 1], for strengths that change over it.
    """

    ablation: Ablation
    step: int
    progress: float

    @property
    def is_shorter(self) -> bool:
        """Whether sequences lose tokens, so that more of them fit into a micro-batch."""
        return self.ablation.spec.kind == "drop_vision"

    def of(self, micro_batch: TensorDict) -> TensorDict:
        """The ablated batch or micro-batch; the clean one is left as it is."""
        return self.ablation(micro_batch, self.step, self.progress)

    def running(self, model: torch.nn.Module) -> AbstractContextManager[None]:
        """What `model` needs while it runs the view: without vision tokens, no vision tower."""
        match self.ablation.spec.kind:
            case "drop_vision":
                return skip_vision_tower(model)
            case "shuffle_text":
                return nullcontext()
            case _:
                return run_own_tower(model)

    def instead(self, clean: Callable[..., Any]) -> Callable[..., Any]:
        """An engine's method that runs the ablated view of the batch or micro-batch that it is given."""

        def ablated(data: TensorDict, *args: Any, **kwargs: Any) -> Any:
            return clean(self.of(data), *args, **kwargs)

        return ablated
