# SPDX-License-Identifier: Apache-2.0
"""Prompts with images as vLLM wants them: one placeholder an image, which vLLM repeats by the image's size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import groupby
from typing import Any


def one_token_an_image(
    generate: Callable[..., Awaitable[Any]], placeholders: Collection[int]
) -> Callable[..., Awaitable[Any]]:
    """`generate` of verl's client, given the first of each run of equal placeholders.

    verl does so itself for Qwen-VL's image processor alone; of other models' images vLLM would see almost twice the
    tokens.
    """

    async def shortened(*args: Any, prompt_ids: Sequence[int], **kwargs: Any) -> Any:
        return await generate(*args, prompt_ids=without_runs(prompt_ids, placeholders), **kwargs)

    return shortened


def without_runs(prompt_ids: Sequence[int], placeholders: Collection[int]) -> list[int]:
    """`prompt_ids` with one token for each run of the same placeholder."""
    runs = groupby(prompt_ids)
    return [token for value, run in runs for token in ((value,) if value in placeholders else run)]
