# SPDX-License-Identifier: Apache-2.0
r"""Reward for responses of the form ``<think> ... </think> ... \boxed{answer}``.

Select it in verl with ``reward.custom_reward_function.path=pkg://verl_ext.rewards.boxed_answer``.
The response is untrusted text: every function here reads it a bounded number of times, with plain
string searches and no regular expression.
"""

from typing import Any

from verl_ext.errors import ConfigurationError

_BOX = "\\boxed{"
_OPEN = "<think>"
_CLOSE = "</think>"


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: object,
    extra_info: dict[str, Any] | None = None,
    *,
    format_weight: float = 0.1,
    **kwargs: object,
) -> dict[str, float]:
    r"""Score one response; every value of the result lies between 0 and 1.

    ``acc`` is 1 when the content of the last balanced ``\boxed{...}`` equals the ground truth,
    ignoring case and surrounding whitespace. ``format`` is 1 when the response opens with a think
    block and holds each of ``<think>``, ``</think>`` and ``\boxed{...}`` exactly once, in that order.
    ``score`` is their mean with weights ``1 - format_weight`` and ``format_weight``.

    ``data_source``, ``extra_info`` and further keywords are part of verl's calling convention and
    are ignored. Raises ``ConfigurationError`` when ``format_weight`` is not between 0 and 1.
    """
    if not 0.0 <= format_weight <= 1.0:
        raise ConfigurationError(key="format_weight", value=format_weight, remedy="must lie between 0 and 1")
    answer = last_boxed(solution_str)
    acc = float(answer is not None and _normal(answer) == _normal(str(ground_truth)))
    form = float(has_format(solution_str))
    return {"score": (1.0 - format_weight) * acc + format_weight * form, "acc": acc, "format": form}


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` whose braces balance, or None.

    "Last" goes by where the box closes, so of two nested boxes the outer one wins. Linear time.
    """
    found: tuple[int, int] | None = None
    open_braces: list[tuple[int, bool]] = []
    for position, character in enumerate(text):
        if character == "{":
            begin = position + 1
            open_braces.append((begin, text.endswith(_BOX, 0, begin)))
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
    if text.count(_OPEN) != 1 or text.count(_CLOSE) != 1 or text.count(_BOX) != 1:
        return False
    box, close = text.find(_BOX), text.find(_CLOSE)
    return text.startswith(_OPEN) and close < box and last_boxed(text[box:]) is not None


def _normal(text: str) -> str:
    return text.strip().casefold()
