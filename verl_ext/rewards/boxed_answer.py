# SPDX-License-Identifier: Apache-2.0
r"""Reward for responses of the form ``<think> ... </think> ... \boxed{answer}``, by exact match.

Select it in verl with ``reward.custom_reward_function.path=pkg://verl_ext.rewards.boxed_answer``.
For answers that can be written in several ways see `verl_ext.rewards.math_answer`.
"""

from typing import Any

from verl_ext.errors import ConfigurationError
from verl_ext.rewards.boxed import has_format, last_boxed


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


def _normal(text: str) -> str:
    return text.strip().casefold()
