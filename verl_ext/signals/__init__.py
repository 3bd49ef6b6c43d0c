# SPDX-License-Identifier: Apache-2.0
"""What is measured per token. Depends on torch alone."""

from verl_ext.signals.distributions import ViewComparison
from verl_ext.signals.divergence import sampled_k3
from verl_ext.signals.entropy import truncated_entropy
from verl_ext.signals.full_vocabulary import logits_divergences, view_divergences
from verl_ext.signals.layer_similarity import SimilarityAccumulator
from verl_ext.signals.layout import TokenLayout
from verl_ext.signals.similarity import visual_similarity

__all__ = [
    "SimilarityAccumulator",
    "TokenLayout",
    "ViewComparison",
    "logits_divergences",
    "sampled_k3",
    "truncated_entropy",
    "view_divergences",
    "visual_similarity",
]
