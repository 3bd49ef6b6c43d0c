# SPDX-License-Identifier: Apache-2.0
"""Perception-aware policy optimisation of vision-language models, on unmodified verl."""
