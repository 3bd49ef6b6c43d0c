# SPDX-License-Identifier: Apache-2.0
"""The attention of a model, by transformers' names, that lets a response branch off behind its prompt."""

from __future__ import annotations

FLASH = ("flash_attention_2", "flash_attention_3")
IMPLEMENTATIONS = (*FLASH, "sdpa")
