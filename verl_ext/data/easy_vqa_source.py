# SPDX-License-Identifier: Apache-2.0
"""easy-VQA (5,000 images of one coloured shape, 48,248 questions) as its PyPI package holds it (MIT licence)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from verl_ext.data.images import as_png
from verl_ext.data.progress import progress_bar
from verl_ext.data.unreadable import UNREADABLE
from verl_ext.errors import DataError

ANSWER_TYPES = ("color", "shape", "yes_no")

COLORS = frozenset({"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"})

SHAPES = frozenset({"circle", "rectangle", "triangle"})

_ANSWERS = COLORS | SHAPES | {"yes", "no"}


@dataclass(frozen=True)
class Question:
    """One question; ``index`` counts through the train split and then the test split."""

    index: int
    split: str
    image_id: int
    text: str
    answer: str

    @property
    def answer_type(self) -> str:
        """``"yes_no"``, ``"color"`` or ``"shape"``."""
        if self.answer in COLORS:
            return "color"
        return "shape" if self.answer in SHAPES else "yes_no"


@dataclass(frozen=True)
class EasyVqa:
    """The whole data set in memory: the questions in order, and PNG bytes (RGB) by (split, image id)."""

    questions: tuple[Question, ...]
    images: dict[tuple[str, int], bytes]


def all_questions(root: Path) -> tuple[Question, ...]:
    questions: list[Question] = []
    for split in ("train", "test"):
        questions += _read_questions(root / split / "questions.json", split, first_index=len(questions))
    return tuple(questions)


def package_root() -> Path:
    """The data folder of the installed package, found without importing it; ``DataError`` when absent."""
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None or spec.origin is None:
        raise DataError("the package easy-vqa is not installed: pip install easy-vqa")
    return Path(spec.origin).parent / "data"


def _read_questions(path: Path, split: str, first_index: int) -> list[Question]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds a {type(rows).__name__}, a list of [question, answer, image id] is needed")
    return [_parse_row(path, split, row, first_index + position) for position, row in enumerate(rows)]


def _parse_row(path: Path, split: str, row: Any, index: int) -> Question:
    match row:
        case [str(text), str(answer), int(image_id)] if text and answer in _ANSWERS:
            return Question(index, split, image_id, text, answer)
    raise DataError(f"{path}: row with index {index} is not [question, known answer, image id]: {row!r}")


def read_images(root: Path, questions: Iterable[Question]) -> dict[tuple[str, int], bytes]:
    keys = dict.fromkeys((question.split, question.image_id) for question in questions)
    images: dict[tuple[str, int], bytes] = {}
    with progress_bar("reading", len(keys), "images") as bar:
        for split, image_id in keys:
            images[split, image_id] = _read_png(root / split / "images" / f"{image_id}.png")
            bar.update()
    return images


def _read_png(path: Path) -> bytes:
    try:
        with Image.open(path) as image:
            return as_png(image.convert("RGB"))
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from error
