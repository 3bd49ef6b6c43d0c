# SPDX-License-Identifier: Apache-2.0
r"""An answer without what surrounds it: dollar signs, ``\text{}``, a full stop."""

import re

_AROUND = (
    ("$$", "$$"),
    ("$", "$"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("\\text{", "}"),
    ("\\textbf{", "}"),
    ("\\mathrm{", "}"),
    ("\\mathbf{", "}"),
    ("{", "}"),
)
_LAYERS = 5
_MIXED = re.compile(r"(?<![0-9.])([0-9]{1,9}) ([0-9]{1,9})/([0-9]{1,9})(?![0-9.])")
"""A whole number and a fraction, which would otherwise be read as a product."""
LONGEST = 2_000
"""Characters of the longest answer that is read; a longer one can only be right by being the same text."""


def plain(text: str) -> str:
    """`text` without up to five layers of markup around it, surrounding white space and a full stop at the end."""
    text = text.strip()
    if len(text) > LONGEST:
        return text
    for _ in range(_LAYERS):
        text = _peeled(text.removesuffix(".").strip())
    return _MIXED.sub(r"\1\\frac{\2}{\3}", text.replace("\N{MINUS SIGN}", "-"))


def normal(text: str) -> str:
    """`text` for comparison as words: one case, single spaces, no punctuation around it."""
    return " ".join(text.casefold().split()).strip(" .,;:!")


def _peeled(text: str) -> str:
    for begin, end in _AROUND:
        inner = text[len(begin) : -len(end)]
        if len(text) >= len(begin) + len(end) and text.startswith(begin) and text.endswith(end):
            whole = balanced(inner) if end == "}" else begin not in inner
            return inner.strip() if whole else text
    return text


def balanced(text: str) -> bool:
    """Whether every brace of `text` is closed after it was opened; escaped braces count as braces. Linear time."""
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0
