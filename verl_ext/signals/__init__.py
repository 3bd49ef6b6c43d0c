# SPDX-License-Identifier: Apache-2.0
"""What is measured per token. Depends on torch alone."""

from verl_ext.signals.divergence import sampled_k3
from verl_ext.signals.entropy import truncated_entropy
from verl_ext.signals.full_vocabulary import ViewComparison, logits_divergences, view_divergences
from verl_ext.signals.similarity import SimilarityAccumulator, TokenLayout, visual_similarity

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
