# SPDX-License-Identifier: Apache-2.0
"""What kind of answer a question has, told from the answer alone; linear time, so that any string may be given."""

import re

from verl_ext.rewards.boxed import BOX, last_boxed

ANSWER_TYPES = ("yes_no", "number", "choice", "expression", "text")

_NUMBER = re.compile(r"[+-]?(\d+(,\d{3})*(\.\d*)?|\.\d+)\s*%?", re.ASCII)
_CHOICE = re.compile(r"\(?[A-J]\)?|[A-J][.:)]\s.*", re.DOTALL)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{3,}")
_MATHS = re.compile(r"[\d^_=+*/()<>|√π°]|[a-z]", re.ASCII)


def unboxed(answer: str) -> str:
    r"""The content of an answer that is one ``\boxed{...}`` and nothing else; any other answer as it is."""
    inside = answer[len(BOX) : -1]
    whole = answer.startswith(BOX) and answer.endswith("}") and last_boxed(answer) == inside
    return inside.strip() if whole else answer


def answer_type(answer: str) -> str:
    r"""One of ``ANSWER_TYPES``; dollar signs around the answer do not count.

    "choice" is a letter from A to J, alone or before its text (``B``, ``(B)``, ``B. 12 cm``); "number" is a plain
    decimal, with a sign, thousands separators or a percent sign; "expression" is other maths, such as ``3\sqrt{2}``,
    ``x=4`` or ``5 cm``; everything else is "text".
    """
    plain = answer.strip().strip("$").strip()
    if plain.casefold() in ("yes", "no"):
        return "yes_no"
    if _NUMBER.fullmatch(plain):
        return "number"
    if _CHOICE.fullmatch(plain):
        return "choice"
    return "expression" if _is_expression(plain) else "text"


def _is_expression(text: str) -> bool:
    if _COMMAND.search(text):
        return True
    # Words of three letters and more are prose: "30 minutes" is text where "5 cm" is a quantity.
    return not _WORD.search(text) and _MATHS.search(text) is not None
