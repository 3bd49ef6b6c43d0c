# SPDX-License-Identifier: Apache-2.0
"""Methods that weight tokens by their visual dependency share how it is measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verl_ext.methods.base import Method, RolloutSignals, choice
from verl_ext.signals.divergence import sampled_k3
from verl_ext.signals.request import MAIN_VIEW, AblatedLogProb, Divergence, Signal


@dataclass(frozen=True)
class DependencyMethod(Method):
    """A method whose signal is the divergence of the clean from an ablated view.

    Attributes:
        divergence: "k3" estimates KL(clean || ablated) from the sampled token alone, as the released code does; "kl"
            and "jsd" (Jensen-Shannon) compare the full distributions, as the papers write it, at a higher price.
        view: name of the ablated view.
    """

    divergence: str = choice("k3", "kl", "jsd")
    view: str = MAIN_VIEW

    def dependency_signal(self) -> Signal:
        """What to measure for :meth:`visual_dependency`."""
        return AblatedLogProb(self.view) if self.divergence == "k3" else Divergence(self.divergence, self.view)

    def visual_dependency(self, signals: RolloutSignals) -> Tensor:
        """(B, T) divergence in nats, >= 0."""
        measured = signals[self.dependency_signal()]
        return sampled_k3(signals.old_log_prob, measured) if self.divergence == "k3" else measured


def neutral_without_image(weights: Tensor, signals: RolloutSignals) -> Tensor:
    """`weights` with 1 on every valid token of the rows without an image.

    There both views are the same, up to the noise of another split into micro-batches.
    """
    return torch.where(signals.has_image[:, None], weights, signals.response_mask.to(weights.dtype))
