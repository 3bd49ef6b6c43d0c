# SPDX-License-Identifier: Apache-2.0
"""What is written of a run: per-token records of a few responses."""
