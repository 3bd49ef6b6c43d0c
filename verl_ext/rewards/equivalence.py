# SPDX-License-Identifier: Apache-2.0
"""Whether an answer is right, as far as that can be said without a library for formulas.

The ground truth alone says how both are read, so that a response cannot choose a rule that suits it.
"""

import re
from enum import Enum

from verl_ext.rewards.notation import LONGEST, normal
from verl_ext.rewards.options import Options
from verl_ext.rewards.quantity import quantity, same_quantity
from verl_ext.rewards.units import UNITS


class Kind(Enum):
    """How a ground truth is read; the values are those of ``extra_info.answer_type``."""

    YES_NO = "yes_no"
    CHOICE = "choice"
    NUMBER = "number"
    EXPRESSION = "expression"
    TEXT = "text"


_TRUTH_VALUES = {"yes": True, "true": True, "no": False, "false": False}
_CHOICE = re.compile(r"(?:([A-Z])|\(([A-Z])\))(?: ?[.:)]?| ?[.:)] (.+)|(?<=\)) (.+))")
_LOOSE_CHOICE = re.compile(
    r"(?:(?:option|choice|answer) ?:? ?)?(?:([A-Z])|\(([A-Z])\)|\[([A-Z])\])(?: ?[.:)]?| ?[.:)] ?(.+)|(?<=[)\]]) (.+))",
    re.IGNORECASE,
)
_FURTHER_CHOICE = re.compile(
    r"(?:\b(?:and|or)\b|[,;&/]) ?\(?[A-Z]\b|(?<![A-Za-z(\[])[(\[]*(?:[A-Z]|(?<!\S)[a-j]) ?[.:)\]]"
)
"""A letter after a word or sign of listing, or marked like a choice; lower case up to j, as the rest are variables."""
_LETTERS = re.compile(r"(?:[\s,;&/|.:()\[\]$]*(?<!\w\()[A-Za-j]\b)+[\s,;&/|.:()\[\]$]*")
_COMMAND = re.compile(r"\\(?:begin|end|operatorname)\{[A-Za-z]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{3,}|[^\W\d_A-Za-z\u0370-\u03ff]")
_FORMULA_WORDS = {
    "and",
    "or",
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "log",
    "exp",
    "max",
    "min",
    "gcd",
    "lcm",
    "inf",
}
_NO_CHOICE = (Kind.NUMBER.value, Kind.EXPRESSION.value, Kind.TEXT.value)


def kind_of(truth: str, hint: object = None) -> Kind:
    """How to read `truth`; `hint` is the row's ``answer_type``, where it has one.

    Yes and no, quantities and words are told from the truth itself. The hint says of a single letter whether it is a
    choice, and of anything else whether it is text. One that is none of the values of `Kind` says nothing.
    """
    hint = hint if isinstance(hint, str) else None
    if normal(truth) in _TRUTH_VALUES:
        return Kind.YES_NO
    if hint not in _NO_CHOICE and _CHOICE.fullmatch(_spaced(truth)):
        return Kind.CHOICE
    if quantity(truth):
        return Kind.NUMBER
    return Kind.TEXT if hint == Kind.TEXT.value or _has_words(truth) else Kind.EXPRESSION


def decided(answer: str, truth: str, kind: Kind, options: Options) -> bool | None:
    """Whether `answer` is right, or None where that takes comparing formulas. Both are plain (see `notation`)."""
    if answer == truth or (kind is not Kind.EXPRESSION and normal(answer) == normal(truth)):
        return True
    if len(answer) > LONGEST or kind is Kind.TEXT:
        return False
    if kind is Kind.YES_NO:
        return _truth_value(answer) is _TRUTH_VALUES[normal(truth)]
    if kind is Kind.CHOICE:
        return _same_choice(_spaced(answer), _spaced(truth))
    return _same_number(answer, truth, options)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _truth_value(answer: str) -> bool | None:
    """What the first word says, unless a later one says the opposite."""
    words = re.findall(r"[a-z]+", answer.casefold())
    said = {_TRUTH_VALUES[word] for word in words if word in _TRUTH_VALUES}
    return said.pop() if words and words[0] in _TRUTH_VALUES and len(said) == 1 else None


def _same_choice(answer: str, truth: str) -> bool:
    """Whether `answer` names the letter of `truth`, or is the text after that letter."""
    right, given = _CHOICE.fullmatch(truth), _LOOSE_CHOICE.fullmatch(answer)
    assert right is not None
    text = right[3] or right[4]
    if text and normal(answer) == normal(text):
        return True
    if given is None or _lists_choices(given[4] or given[5] or ""):
        return False
    return (given[1] or given[2] or given[3]).upper() == (right[1] or right[2])


def _lists_choices(text: str) -> bool:
    """Whether `text`, which follows the letter of a choice, names a further one or is nothing but letters."""
    return _FURTHER_CHOICE.search(text) is not None or _LETTERS.fullmatch(text) is not None


def _same_number(answer: str, truth: str, options: Options) -> bool | None:
    given, right = quantity(answer), quantity(truth)
    if given is None or right is None:
        return None
    return same_quantity(given, right, options.relative_tolerance, options.absolute_tolerance)


def _has_words(truth: str) -> bool:
    """Whether words stand in `truth`; read as a formula they would be products of letters, in any order."""
    words = _WORD.findall(_COMMAND.sub(" ", truth))
    return any(word.casefold() not in _FORMULA_WORDS and word not in UNITS for word in words)
