# SPDX-License-Identifier: Apache-2.0
r"""Units of measurement after a number, so that ``12 cm^2`` and ``12 \text{ square centimeters}`` are the same.

Units are compared, not converted, and a missing unit is no difference.
"""

import re

_NAMES = {
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres",
    "dm": "decimeter decimeters decimetre decimetres",
    "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres",
    "in": "inch inches in.",
    "ft": "foot feet ft.",
    "yd": "yard yards",
    "mi": "mile miles",
    "mg": "milligram milligrams",
    "g": "gram grams",
    "kg": "kilogram kilograms",
    "lb": "lbs pound pounds",
    "ml": "mL milliliter milliliters",
    "l": "L liter liters litre litres",
    "s": "sec second seconds",
    "min": "minute minutes",
    "h": "hr hrs hour hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years",
    "rad": "radian radians",
    "°": "^\\circ \\circ \\degree deg degree degrees",
    "°C": "^\\circC degreesCelsius",
    "%": "\\% percent",
    "$": "\\$ dollar dollars",
    "€": "euro euros",
    "£": "",
    "¥": "yuan yen",
    "N": "newton newtons",
    "J": "joule joules",
    "W": "watt watts",
    "V": "volt volts",
    "A": "ampere amperes",
    "Ω": "\\Omega ohm ohms",
    "Pa": "pascal pascals",
    "Hz": "hertz",
    "": "unit units",
}
UNITS = {spelling: unit for unit, spellings in _NAMES.items() for spelling in (unit, *spellings.split())}
"""Every spelling that is understood, with the unit's symbol."""
_MARKUP = re.compile(r"\\(?:text|mathrm|rm|,|;|!|:| )|[{}~\s]")
_PART = re.compile(r"(?:(square|sq\.?)|(cubic|cu\.?))?(.*?)(?:\^?([23])|([²³]))?", re.DOTALL)
_POWERS = {"2": "2", "²": "2", "3": "3", "³": "3"}


def unit_of(text: str) -> str | None:
    """The unit that `text` spells: its symbol, "" for no text, or None for any other text."""
    bare = _MARKUP.sub("", text.replace(" per ", "/"))
    parts = [_part(part) for part in bare.split("/")] if bare else []
    return None if None in parts else "/".join(str(part) for part in parts)


def _part(text: str) -> str | None:
    match = _PART.fullmatch(text)
    square, cubic, name, power, raised = match.groups() if match else (None, None, text, None, None)
    if not name or name not in UNITS:
        return None
    exponent = "2" if square else "3" if cubic else _POWERS.get(power or raised or "", "")
    return UNITS[name] and UNITS[name] + exponent
