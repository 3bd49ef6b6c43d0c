# SPDX-License-Identifier: Apache-2.0
"""The names of what can be measured. A method asks for signals; each is measured once, whoever asks.

Every signal is one number a response token, (B, T) fp32, under the policy that the rollout sampled from.
"""

from __future__ import annotations

from dataclasses import dataclass

MAIN_VIEW = "ablated"
"""The view that `perception.ablation` describes; others are named in `perception.views`."""

CLEAN_VIEW = "clean"
"""The view with the image as it is."""

KINDS = ("kl", "jsd")
"""Divergences over the whole vocabulary."""


@dataclass(frozen=True)
class AblatedLogProb:
    """Log-probabilities of the response tokens under an image-ablated view."""

    view: str = MAIN_VIEW

    @property
    def field(self) -> str:
        """Name of the signal in a batch."""
        return "ablated_log_prob" + _suffix(self.view)


@dataclass(frozen=True)
class Divergence:
    """Divergence (nats) of the clean from an ablated view over the whole vocabulary.

    Attributes:
        kind: "kl" for KL(clean || ablated), "jsd" for the Jensen-Shannon divergence.
        view: the ablated view.

    Raises:
        ValueError: `kind` is neither.
    """

    kind: str = "kl"
    view: str = MAIN_VIEW

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; it must be one of {KINDS}")

    @property
    def field(self) -> str:
        """Name of the signal in a batch."""
        return f"visual_{self.kind}" + _suffix(self.view)


@dataclass(frozen=True)
class Entropy:
    """Entropy (nats) of the distribution that each token was drawn from.

    Attributes:
        top_p: below 1, entropy of the smallest set of most likely tokens that holds this much probability; of the
            clean view only.
        view: the clean or an ablated view.

    Raises:
        ValueError: `top_p` is not in (0, 1], or not 1 for an ablated view.
    """

    top_p: float = 1.0
    view: str = CLEAN_VIEW

    def __post_init__(self) -> None:
        if not 0.0 < self.top_p <= 1.0 or (self.top_p < 1.0 and self.view != CLEAN_VIEW):
            raise ValueError(f"top_p is {self.top_p!r}; it must be in (0, 1], and 1 for an ablated view")

    @property
    def field(self) -> str:
        """Name of the signal in a batch; verl's own where verl measures it."""
        if self.view == CLEAN_VIEW:
            return "entropy" if self.top_p >= 1.0 else f"entropy_top_p_{self.top_p:g}"
        return "ablated_entropy" + _suffix(self.view)


@dataclass(frozen=True)
class Similarity:
    """Similarity of each response token's hidden states to the image's; see `visual_similarity`."""

    score: str = "cosine"
    layers: str = "all"
    pooling: str = "pairwise_mean"

    @property
    def field(self) -> str:
        """Name of the signal in a batch."""
        return f"visual_similarity_{self.score}_{self.layers}_{self.pooling}"


Signal = AblatedLogProb | Divergence | Entropy | Similarity


def needs_logits(signal: Signal) -> bool:
    """Whether measuring it takes the full vocabulary's logits, which fused kernels never produce."""
    if isinstance(signal, Entropy):
        return signal.top_p < 1.0 or signal.view != CLEAN_VIEW
    return isinstance(signal, Divergence)


def view_of(signal: Signal) -> str | None:
    """Name of the ablated view that the signal compares with; None if it needs none."""
    of_clean_view = isinstance(signal, Entropy) and signal.view == CLEAN_VIEW
    return None if of_clean_view or isinstance(signal, Similarity) else signal.view


def _suffix(view: str) -> str:
    return "" if view == MAIN_VIEW else f"_{view}"
