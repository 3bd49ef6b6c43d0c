# SPDX-License-Identifier: Apache-2.0
"""The README.md beside prepared files: what is in them, where it came from, and what was left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Any

from verl_ext.data.answers import ANSWER_TYPES
from verl_ext.data.counts import FileCounts
from verl_ext.data.markdown import markdown_table
from verl_ext.data.prompts import Prompt
from verl_ext.data.source import Source

NAMED_ROWS = 20
"""Unusable rows that a card names; further ones are only counted."""

_CARD = """# {title}, in verl's schema

Made by `verl-ext data` from {origin}. Licence: {licence}.

## Files

{files}

## Images

{images}

An image that is an upright RGB PNG or JPEG is embedded as it is; any other is converted to an RGB PNG, its EXIF
orientation applied and its transparent parts over white. Images count as the same when their decoded pixels are.

## Answers

{answers}

## Left out

{dropped}

## Prompt

Every prompt is one user message, made by this template (`{template}`) from the question with its `<image>` marks:

```jinja
{source}
```

## Options

{options}
"""


def data_card(*, source: Source, files: Mapping[str, FileCounts], prompt: Prompt, options: Mapping[str, str]) -> str:
    """The card as Markdown; `files` are the counts of each file by its name without suffix."""
    return _CARD.format(
        title=source.title,
        origin=source.origin,
        licence=source.licence,
        files=markdown_table(("file", "rows", "images"), _file_rows(files)),
        images=markdown_table(
            ("file", "width: min / median / max", "height: min / median / max", "images a row: rows", "scaled down"),
            _image_rows(files),
        ),
        answers=markdown_table(("file", *ANSWER_TYPES), _answer_rows(files)),
        dropped="\n".join(_dropped(files)) or "Nothing.",
        template=prompt.name,
        source=prompt.source,
        options=markdown_table(("option", "value"), options.items()),
    )


def _file_rows(files: Mapping[str, FileCounts]) -> list[tuple[Any, ...]]:
    return [(f"`{name}.parquet`", counts.rows, len(counts.digests)) for name, counts in files.items()]


def _image_rows(files: Mapping[str, FileCounts]) -> list[tuple[Any, ...]]:
    return [
        (f"`{name}.parquet`", *_spreads(counts.sizes), _histogram(counts.images_per_row), counts.downscaled)
        for name, counts in files.items()
    ]


def _answer_rows(files: Mapping[str, FileCounts]) -> list[tuple[Any, ...]]:
    return [
        (f"`{name}.parquet`", *(counts.answer_types[kind] for kind in ANSWER_TYPES)) for name, counts in files.items()
    ]


def _spreads(sizes: Counter[tuple[int, int]]) -> tuple[str, str]:
    if not sizes:
        return "-", "-"
    return _spread([width for width, _ in sizes.elements()]), _spread([height for _, height in sizes.elements()])


def _spread(values: Sequence[int]) -> str:
    return f"{min(values)} / {median_low(values)} / {max(values)}"


def _histogram(counts: Counter[int]) -> str:
    return ", ".join(f"{number}: {rows}" for number, rows in sorted(counts.items())) or "-"


def _dropped(files: Mapping[str, FileCounts]) -> list[str]:
    lines: list[str] = []
    for name, counts in files.items():
        if counts.duplicates:
            lines.append(f"* `{name}.parquet`: {counts.duplicates} rows that share an image with held-out rows.")
        if counts.unusable:
            lines.append(f"* `{name}.parquet`: {len(counts.unusable)} unusable rows:")
            lines += [f"  * {reason}" for reason in counts.unusable[:NAMED_ROWS]]
        if len(counts.unusable) > NAMED_ROWS:
            lines.append(f"  * and {len(counts.unusable) - NAMED_ROWS} more.")
    return lines
