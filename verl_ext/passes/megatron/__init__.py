# SPDX-License-Identifier: Apache-2.0
"""Signals in verl's Megatron engine, whose models are cut over tensor, sequence, context and pipeline ranks."""
