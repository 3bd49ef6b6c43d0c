# SPDX-License-Identifier: Apache-2.0
"""Decimal numbers with an optional unit, read exactly and without the help of a library for formulas."""

import re
from dataclasses import dataclass
from fractions import Fraction

from verl_ext.rewards.notation import LONGEST
from verl_ext.rewards.units import unit_of

_CURRENCY = re.compile(r"\\?[$€£¥]")
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)\s*(?=\.?[0-9])"
    r"(?P<whole>[0-9]{1,3}(?:(?:,|\{,\}|\\,)[0-9]{3})+(?![0-9])|[0-9]*)(?P<part>\.[0-9]+|\.(?![0-9]))?"
    r"(?:[eE](?P<e>[+-]?[0-9]{1,3})"
    r"|\s*(?:\\times|\\cdot|[*\u00d7\u00b7])\s*10\s*\^(?:\{(?P<p>[+-]?[0-9]{1,3})\}|(?P<q>[0-9]{1,3})))?"
)


@dataclass(frozen=True)
class Quantity:
    """A number, and its unit or ""."""

    value: Fraction
    unit: str


def quantity(text: str) -> Quantity | None:
    """The quantity that `text` is as a whole, or None. Exponents have at most three digits."""
    if len(text) > LONGEST:
        return None
    currency = _CURRENCY.match(text)
    text = text[currency.end() :].lstrip() if currency else text
    match = _NUMBER.match(text)
    if match is None:
        return None
    unit = unit_of(text[match.end() :].strip())
    return None if unit is None else Quantity(_value(match), currency[0][-1] if currency and not unit else unit)


def same_quantity(first: Quantity, second: Quantity, relative: float = 0.0, absolute: float = 0.0) -> bool:
    """Whether both are the same but for a unit that one lacks, within the tolerances.

    A percentage is the same as a number without unit in either reading: 50% as 50 and as 0.5.
    """
    if first.unit and second.unit and first.unit != second.unit:
        return False
    pairs = [(first.value, second.value)]
    if (first.unit == "%") != (second.unit == "%"):
        pairs.append((_share(first), _share(second)))
    return any(_near(one, other, relative, absolute) for one, other in pairs)


def _value(match: re.Match[str]) -> Fraction:
    digits = re.sub(r"[^0-9]", "", match["whole"]) or "0"
    part = match["part"] if match["part"] and len(match["part"]) > 1 else ""
    exponent = match["e"] or match["p"] or match["q"] or "0"
    return Fraction(f"{match['sign']}{digits}{part}e{exponent}")


def _share(given: Quantity) -> Fraction:
    return given.value / 100 if given.unit == "%" else given.value


def _near(one: Fraction, other: Fraction, relative: float, absolute: float) -> bool:
    return abs(one - other) <= max(Fraction(relative) * max(abs(one), abs(other)), Fraction(absolute))
