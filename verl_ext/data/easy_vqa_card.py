# SPDX-License-Identifier: Apache-2.0
"""The data card of easy-VQA in verl's schema, and the words that its rows share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from verl_ext.data.markdown import markdown_table
from verl_ext.data.row_check import PLACEHOLDER
from verl_ext.data.rows import BLIND_SUFFIX, Row

DATA_SOURCE = "easy_vqa"

BLIND_DATA_SOURCE = DATA_SOURCE + BLIND_SUFFIX

INSTRUCTION = r"Think first, then put the answer in \boxed{}."

_CARD = Path(__file__).with_suffix(".md")


def data_card(files: dict[str, list[Row]], rl_fraction: float, blind_fraction: float, questions: str, seed: int) -> str:
    header = ("file", "rows", "with image", "images", "yes/no", "colour", "shape")
    table = markdown_table(header, [_card_line(name, rows) for name, rows in files.items()])
    return _CARD.read_text(encoding="utf-8").format(
        rl_fraction=rl_fraction,
        blind_fraction=blind_fraction,
        questions=questions,
        seed=seed,
        table=table,
        blind_source=BLIND_DATA_SOURCE,
        placeholder=PLACEHOLDER,
        instruction=INSTRUCTION,
    )


def _card_line(name: str, rows: list[Row]) -> tuple[Any, ...]:
    types = Counter(row["extra_info"]["answer_type"] for row in rows)
    with_image = [row for row in rows if row["images"]]
    images = {(row["extra_info"]["split"], row["extra_info"]["image_id"]) for row in with_image}
    return (f"`{name}.parquet`", len(rows), len(with_image), len(images), *(types[t] for t in _CARD_TYPES))


_CARD_TYPES = ("yes_no", "color", "shape")
