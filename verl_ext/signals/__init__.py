# SPDX-License-Identifier: Apache-2.0
"""What is measured per token. Depends on torch alone."""

from verl_ext.signals.divergence import sampled_k3

__all__ = ["sampled_k3"]
