# SPDX-License-Identifier: Apache-2.0
"""Attention over responses that share their prompt, which stands once before them in a packed sequence."""
