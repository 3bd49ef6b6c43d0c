# SPDX-License-Identifier: Apache-2.0
"""Rows as verl's data set reads them, with and without their images."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from verl_ext.data.row_check import PLACEHOLDER

Row = dict[str, Any]
BLIND_SUFFIX = "_blind"

# With the space before it, so that none is left double inside a sentence.
_MARK = re.compile(f" ?{PLACEHOLDER}")


def build_row(
    *,
    data_source: str,
    prompt: str,
    images: Sequence[bytes],
    ability: str,
    answer: str,
    extra_info: Mapping[str, Any],
) -> Row:
    """One row: `prompt` as a single user message with an `<image>` for each of `images` (PNG or JPEG bytes).

    `answer` is what a rule-based reward compares with; it also goes into `extra_info`.
    """
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": prompt}],
        "images": [{"bytes": image} for image in images],
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {**extra_info, "answer": answer},
    }


def without_images(row: Row, offset: int) -> Row:
    """The same question with its images and placeholders taken away.

    It has a data source of its own, so that verl reports its accuracy separately, and `offset` added to
    `extra_info.index`, which no other row may have.
    """
    (message,) = row["prompt"]
    return {
        **row,
        "data_source": row["data_source"] + BLIND_SUFFIX,
        "prompt": [{**message, "content": unmarked(message["content"])}],
        "images": [],
        "extra_info": {**row["extra_info"], "index": row["extra_info"]["index"] + offset},
    }


def unmarked(text: str) -> str:
    """The text without its image placeholders and the white space that they leave in front."""
    while PLACEHOLDER in text:  # taking one out of "<<image>image>" makes another
        text = _MARK.sub("", text)
    return text.lstrip()
