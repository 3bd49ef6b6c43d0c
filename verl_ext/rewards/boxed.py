# SPDX-License-Identifier: Apache-2.0
r"""Where the answer of a response stands: the last ``\boxed{...}``, and whether the response has the asked form.

The response is untrusted text: every function here reads it a bounded number of times, with plain
string searches and no regular expression.
"""

BOX = "\\boxed{"
_OPEN = "<think>"
_CLOSE = "</think>"


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` whose braces balance, or None.

    "Last" goes by where the box closes, so of two nested boxes the outer one wins. Linear time.
    """
    found: tuple[int, int] | None = None
    open_braces: list[tuple[int, bool]] = []
    for position, character in enumerate(text):
        if character == "{":
            begin = position + 1
            open_braces.append((begin, text.endswith(BOX, 0, begin)))
        elif character == "}" and open_braces:
            begin, is_box = open_braces.pop()
            if is_box:
                found = (begin, position)
    return None if found is None else text[found[0] : found[1]]


def has_format(text: str) -> bool:
    r"""Whether the response is one think block followed by exactly one balanced ``\boxed{...}``.

    Whitespace may surround the response, and any text the block and the box.
    """
    text = text.strip()
    if text.count(_OPEN) != 1 or text.count(_CLOSE) != 1 or text.count(BOX) != 1:
        return False
    box, close = text.find(BOX), text.find(_CLOSE)
    return text.startswith(_OPEN) and close < box and last_boxed(text[box:]) is not None
