# SPDX-License-Identifier: Apache-2.0
"""Which responses of a batch are recorded: the same prompts whenever they come up, the best and the worst of each."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence


def prompt_id(tokens: Sequence[int], source: str, index: object) -> str:
    """A name that a prompt has in every epoch and every run.

    Args:
        tokens: ids of the prompt.
        source: verl's `data_source` of the row.
        index: `extra_info.index` of the row, which tells questions apart that only differ by their image.
    """
    text = f"{source}\n{index}\n{','.join(map(str, tokens))}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def choose(prompts: Sequence[str], rewards: Sequence[float], watched: Collection[str], fresh: int) -> list[int]:
    """Rows to record, in order.

    Args:
        prompts: (B) name of each row's prompt.
        rewards: (B) score of each row.
        watched: prompts of which the best and the worst response are always recorded.
        fresh: how many responses to record beside or of those; prompts with the smallest names come first, so that
            the same ones are met again.
    """
    rows = defaultdict(list)
    for row, prompt in enumerate(prompts):
        rows[prompt].append(row)
    ordered = [row for prompt in sorted(rows) for row in _extremes(rows[prompt], rewards)]
    again = [row for row in ordered if prompts[row] in watched]
    return sorted({*again, *ordered[:fresh]})


def _extremes(rows: Sequence[int], rewards: Sequence[float]) -> list[int]:
    """The row of the highest reward, and that of the lowest where they differ."""
    best, worst = (pick(rows, key=lambda row: rewards[row]) for pick in (max, min))
    return [best] if rewards[best] == rewards[worst] else [best, worst]
