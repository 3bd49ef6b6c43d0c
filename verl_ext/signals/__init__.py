# SPDX-License-Identifier: Apache-2.0
"""What is measured per token. Depends on torch alone."""

from verl_ext.signals.divergence import sampled_k3
from verl_ext.signals.similarity import SimilarityAccumulator, TokenLayout, visual_similarity

__all__ = ["SimilarityAccumulator", "TokenLayout", "sampled_k3", "visual_similarity"]
