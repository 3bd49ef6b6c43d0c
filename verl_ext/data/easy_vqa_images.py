# SPDX-License-Identifier: Apache-2.0
"""What easy-VQA's images show, concluded from questions and answers."""

from __future__ import annotations

from collections.abc import Iterable

from verl_ext.data.easy_vqa_source import (
    COLORS,
    SHAPES,
    Question,
)
from verl_ext.errors import DataError

_NEGATIONS = frozenset({"no", "not"})


def describe_images(questions: Iterable[Question]) -> dict[tuple[str, int], str]:
    """Say what every image shows, such as ``"a red circle"``, from its questions and answers alone.

    An attribute that the questions leave open is left out (``"a red shape"``, ``"a circle"``,
    ``"a shape"``). Keys are (split, image id). Raises ``DataError`` when two questions disagree.
    """
    possible: dict[tuple[str, int], tuple[frozenset[str], frozenset[str]]] = {}
    for question in questions:
        key = (question.split, question.image_id)
        colors, shapes = possible.get(key, (COLORS, SHAPES))
        for word, present in _stated(question):
            colors, shapes = _narrow(colors, COLORS, word, present), _narrow(shapes, SHAPES, word, present)
        if not colors or not shapes:
            raise DataError(f"row with index {question.index} contradicts other questions on image {key}: {question}")
        possible[key] = (colors, shapes)
    return {key: _describe(colors, shapes) for key, (colors, shapes) in possible.items()}


def _stated(question: Question) -> list[tuple[str, bool]]:
    """The colour and shape words of a question and its answer, each with whether the image shows it."""
    words = question.text.lower().rstrip("?").split()
    mentioned = [word for word in words if word in COLORS or word in SHAPES]
    if question.answer_type != "yes_no":
        return [(word, True) for word in (*mentioned, question.answer)]
    negated = not _NEGATIONS.isdisjoint(words)
    return [(word, (question.answer == "yes") != negated) for word in mentioned]


def _narrow(candidates: frozenset[str], domain: frozenset[str], word: str, present: bool) -> frozenset[str]:
    if word not in domain:
        return candidates
    return candidates & {word} if present else candidates - {word}


def _describe(colors: frozenset[str], shapes: frozenset[str]) -> str:
    color = next(iter(colors)) if len(colors) == 1 else ""
    shape = next(iter(shapes)) if len(shapes) == 1 else "shape"
    return " ".join(filter(None, ("a", color, shape)))
