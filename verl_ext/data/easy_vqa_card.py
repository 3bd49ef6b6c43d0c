# SPDX-License-Identifier: Apache-2.0
"""The data card of easy-VQA in verl's schema, and the words that its rows share."""

from __future__ import annotations

from collections import Counter
from typing import Any

from verl_ext.data.markdown import markdown_table
from verl_ext.data.row_check import PLACEHOLDER
from verl_ext.data.rows import BLIND_SUFFIX, Row

DATA_SOURCE = "easy_vqa"

BLIND_DATA_SOURCE = DATA_SOURCE + BLIND_SUFFIX

INSTRUCTION = r"Think first, then put the answer in \boxed{}."

_CARD = r"""# easy-VQA in verl's schema

Made from the PyPI package `easy-vqa` 1.0 by `verl-ext data easy-vqa`
(rl_fraction {rl_fraction}, blind_fraction {blind_fraction}, questions {questions}, seed {seed}).
Licence of the images and questions: MIT.

Each 64x64 image shows one shape (circle, rectangle, triangle) in one of eight colours.

{table}

* `sft.parquet`: warm start, with a `response` column (`<think> a red circle </think> \boxed{{red}}`); the rows
  without an image keep their response, so that the model learns what can be guessed.
* `train.parquet`: reinforcement learning; shares no image with `sft.parquet`.
* `test.parquet`: a fixed sample of the official test split.
* `test_blind.parquet`: the same questions without the image (`data_source` = `{blind_source}`).

Every prompt is one user message: `{placeholder}`, the question, and the instruction `{instruction}`.
Blind rows lack `{placeholder}` and have an empty `images` list. `extra_info.index` is unique over all four files.
"""


def data_card(files: dict[str, list[Row]], rl_fraction: float, blind_fraction: float, questions: str, seed: int) -> str:
    header = ("file", "rows", "with image", "images", "yes/no", "colour", "shape")
    table = markdown_table(header, [_card_line(name, rows) for name, rows in files.items()])
    return _CARD.format(
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
