# SPDX-License-Identifier: Apache-2.0
"""A question about images, read from a row of any of the layouts that such data sets come in."""

import json
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_ext.data.answers import unboxed
from verl_ext.data.image_files import ImageFiles
from verl_ext.data.row_check import PLACEHOLDER
from verl_ext.errors import DataError

QUESTION_COLUMNS = ("problem", "question")
IMAGE_COLUMNS = ("images", "image", "file_names", "file_name")
ID_COLUMNS = ("id", "qid")
_OTHER_MEDIA = ("<video>", "<audio>")


@dataclass(frozen=True)
class Example:
    """A question.

    Attributes:
        question: its text with one `<image>` an image, in place, and the lettered choices, if there are any.
        answer: what is right; a letter where there are choices.
        images: the bytes of the image files, in the order of the placeholders.
        source_id: what its data set calls it, or "".
    """

    question: str
    answer: str
    images: tuple[bytes, ...]
    source_id: str


def read_example(values: Mapping[str, Any], files: ImageFiles) -> Example:
    """Read a row with a question, an answer, its images and, if there are any, choices and an id.

    The first of `QUESTION_COLUMNS`, `IMAGE_COLUMNS` and `ID_COLUMNS` that the row has counts. An image is a path, its
    bytes, or a struct of both; a cell holds one, a list, or a JSON list. A question that marks no image gets its
    placeholders in front. An answer that is wholly in a box is taken out of it.

    Raises:
        DataError: a column is missing or empty, an image cannot be read, the placeholders do not fit the images, or
            there are more choices than letters.
    """
    question, answer = _text(values, QUESTION_COLUMNS), unboxed(_text(values, ("answer",)))
    images = tuple(_image_bytes(image, files) for image in _list(_cell(values, IMAGE_COLUMNS), "images"))
    choices = [str(choice) for choice in _list(values.get("choices"), "choices")]
    if choices:
        question, answer = _with_choices(question, choices), _letter(answer, choices)
    return Example(_with_placeholders(question, len(images)), answer, images, _source_id(values))


def _cell(values: Mapping[str, Any], columns: tuple[str, ...]) -> Any:
    for column in columns:
        if column in values:
            return values[column]
    raise DataError(f"has no column {' or '.join(columns)}, but {', '.join(map(str, values)) or 'none'}")


def _text(values: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    cell = _cell(values, columns)
    if not _is_text(cell) or not str(cell).strip():
        raise DataError(f"{' or '.join(columns)} is {cell!r}; text is needed")
    return str(cell).strip()


def _is_text(cell: Any) -> bool:
    # A number that is none is how a table says that nothing is there.
    finite = not isinstance(cell, float) or math.isfinite(cell)
    return isinstance(cell, str | int | float) and not isinstance(cell, bool) and finite


def _source_id(values: Mapping[str, Any]) -> str:
    return next((str(values[column]) for column in ID_COLUMNS if values.get(column) is not None), "")


def _list(cell: Any, column: str) -> list[Any]:
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        cell = _json_list(cell, column)
    if cell is None or cell == "":
        return []
    return cell if isinstance(cell, list) else [cell]


def _json_list(cell: str, column: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{column} begins like a JSON list, but is none: {error}") from error


def _image_bytes(image: Any, files: ImageFiles) -> bytes:
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        return image
    if isinstance(image, str) and image:
        return files.read(image)
    raise DataError(f"has an image without bytes or path: {image!r}")


def _with_choices(question: str, choices: Sequence[str]) -> str:
    letters = string.ascii_uppercase
    if len(choices) > len(letters):
        raise DataError(f"has {len(choices)} choices; there are letters for {len(letters)}")
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False)]
    return "\n".join((question, *lines))


def _letter(answer: str, choices: list[str]) -> str:
    letters = string.ascii_uppercase[: len(choices)]
    if answer in choices:
        return letters[choices.index(answer)]
    if len(answer) == 1 and answer in letters:
        return answer
    raise DataError(f"answer {answer!r} is none of the choices, nor a letter from A to {letters[-1]}")


def _with_placeholders(question: str, images: int) -> str:
    for mark in _OTHER_MEDIA:
        if mark in question:
            raise DataError(f"the question has {mark}, which verl reads as a medium of that kind; take it out")
    marked = question.count(PLACEHOLDER)
    if not marked:
        return PLACEHOLDER * images + question
    if marked != images:
        raise DataError(f"the question marks {marked} images with {PLACEHOLDER} but the row holds {images}")
    return question
