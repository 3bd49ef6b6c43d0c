# SPDX-License-Identifier: Apache-2.0
r"""Reward for answers in ``\boxed{...}`` that can be written in several ways: numbers, formulas, choices, words.

Select it in verl with ``reward.custom_reward_function.path=pkg://verl_ext.rewards.math_answer``, and options with
``+reward.custom_reward_function.reward_kwargs.<option>=<value>``; `verl_ext.rewards.options.Options` lists them.
"""

from typing import Any

from verl_ext.errors import DataError
from verl_ext.rewards.bounded import same_formula
from verl_ext.rewards.boxed import has_format, last_boxed
from verl_ext.rewards.equivalence import decided, kind_of
from verl_ext.rewards.length import overlong
from verl_ext.rewards.notation import plain
from verl_ext.rewards.options import Options


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: object,
    extra_info: dict[str, Any] | None = None,
    **options: object,
) -> dict[str, float]:
    r"""Score one response, in bounded time and without exception whatever its text.

    Args:
        data_source: named in errors only, as is ``extra_info.index``; one rule serves all data sets.
        solution_str: the response. Its answer is the content of the last balanced ``\boxed{...}``.
        ground_truth: the right answer, a string or number, with or without a box or dollar signs around it.
        extra_info: ``answer_type``, where there is one, says how to read the ground truth.
        options: fields of `Options`.

    Returns:
        ``acc``: 1 for a right answer. ``format``: 1 for a think block followed by exactly one box.
        ``timeout``: 1 when the comparison had no verdict within its bounds and the answer counts as wrong.
        ``overlong``: penalty of length, between 0 and 1.
        ``score``: ``(1 - format_weight) acc + format_weight format - overlong_factor overlong``; between 0 and 1
        unless a penalty of length is asked for.

    Raises:
        ConfigurationError: an option is unknown or out of range.
        DataError: the ground truth is empty or no string or number.
    """
    chosen = Options.from_keywords(options)
    row = extra_info or {}
    truth = _usable(ground_truth, f"{data_source}, row {row.get('index', 'without index')}")
    verdict = _verdict(last_boxed(solution_str), truth, row.get("answer_type"), chosen)
    return _mixed(float(verdict is True), float(verdict is None), solution_str, chosen)


def _usable(ground_truth: object, row: str) -> str:
    truth = _unboxed(str(ground_truth)) if isinstance(ground_truth, str | int | float) else ""
    if not truth:
        raise DataError(f"{row}: ground_truth {ground_truth!r} is no answer; write a string or number that is one")
    return truth


def _unboxed(text: str) -> str:
    inner = last_boxed(text)
    return plain(text if inner is None else inner)


def _verdict(boxed: str | None, truth: str, hint: object, options: Options) -> bool | None:
    """Whether the answer is right; None when that could not be decided within the bounds."""
    if boxed is None:
        return False
    answer = _unboxed(boxed)
    verdict = decided(answer, truth, kind_of(truth, hint), options)
    return same_formula(answer, truth, options) if verdict is None else verdict


def _mixed(accuracy: float, timeout: float, response: str, options: Options) -> dict[str, float]:
    form = float(has_format(response))
    excess = overlong(len(response), options.overlong_limit, options.overlong_buffer) if options.overlong_limit else 0.0
    mean = (1.0 - options.format_weight) * accuracy + options.format_weight * form
    score = mean - options.overlong_factor * excess
    return {"score": score, "acc": accuracy, "format": form, "timeout": timeout, "overlong": excess}
