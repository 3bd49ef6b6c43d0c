# SPDX-License-Identifier: Apache-2.0
"""Tokens laid out in rows of a fixed number of columns, for a figure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A token, or the part of one that fits into a row.

    Attributes:
        token: index of the token.
        text: printable characters.
        row: from 0.
        column: of the first character, from 0.
        width: number of columns.
    """

    token: int
    text: str
    row: int
    column: int
    width: int


def flow(tokens: Sequence[str], columns: int) -> list[Cell]:
    """Lay out the tokens one after the other.

    A token that does not fit into the rest of its row begins the next one; one longer than a row is cut. A line feed
    ends its row. Other characters that cannot be printed become a middle dot.

    Args:
        tokens: as text.
        columns: of a row, at least 2, since some characters take two.
    """
    cells: list[Cell] = []
    row = column = 0
    for index, token in enumerate(tokens):
        for number, line in enumerate(token.split("\n")):
            if number:
                row, column = row + 1, 0
            for text, width in _pieces(line, columns):
                if column + width > columns:
                    row, column = row + 1, 0
                cells.append(Cell(index, text, row, column, width))
                column += width
    return cells


def _pieces(line: str, columns: int) -> Iterator[tuple[str, int]]:
    """The line in parts that fit into a row, each with its number of columns."""
    text, width = "", 0
    for character in line:
        added = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width + added > columns:
            yield text, width
            text, width = "", 0
        text, width = text + (character if character.isprintable() else "·"), width + added
    if text:
        yield text, width
