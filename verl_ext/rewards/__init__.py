# SPDX-License-Identifier: Apache-2.0
"""Answers compared with the truth, in time and in a process of their own."""
