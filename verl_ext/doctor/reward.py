# SPDX-License-Identifier: Apache-2.0
"""Can the reward function be imported, and does it score the right answer of a row above a wrong one?"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from importlib import import_module
from itertools import chain
from typing import Any

from verl_ext.doctor.checks import Check, described, failure, ok, warning
from verl_ext.doctor.subject import Subject

FUNCTION = "reward.custom_reward_function"
FILTER = "algorithm.filter_groups"
FORMS = {"alone": "{}", r"as <think> </think> \boxed{...}": r"<think> </think> \boxed{{{}}}"}
"""How an answer becomes a response."""
WRONG = "?"
"""An answer that is wrong for every row."""


def reward_checks(subject: Subject) -> Iterator[Check]:
    """Call it as verl's reward manager would, with the right answer and with a wrong one, in each of `FORMS`."""
    if subject.get("reward.reward_model.enable"):
        yield ok("reward", "a reward model, which is not looked into")
        return
    from verl.trainer.ppo.reward import get_custom_reward_fn, get_default_compute_score

    name = f"{subject.get(f'{FUNCTION}.path', 'verl')}:{subject.get(f'{FUNCTION}.name')}"
    try:
        function = get_custom_reward_fn(subject.composed)
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        yield failure("reward", described(error.__cause__ or error), f"correct {FUNCTION}.path or {FUNCTION}.name")
        return
    if function is None:
        name, function = "verl's own function", get_default_compute_score(subject.get("reward.reward_manager.name"))
    if subject.rows:
        yield _scored(subject, name, function)
    else:
        yield ok("reward", f"{name} can be imported; there is no row to score")


def _scored(subject: Subject, name: str, function: Callable[..., Any]) -> Check:
    row = deepcopy(dict(subject.rows[0]))
    source, truth = row.get("data_source"), (row.get("reward_model") or {}).get("ground_truth")
    if source is None or truth is None:
        found = "the first row lacks data_source or reward_model.ground_truth, which verl gives to the function"
        return failure("reward", found, "add the columns")
    known = {"data_source": source, "ground_truth": truth, "extra_info": row.get("extra_info") or {}}
    try:
        results = {
            form: [_call(function, text.format(answer), known) for answer in (truth, WRONG)]
            for form, text in FORMS.items()
        }
    except NotImplementedError:
        return failure("reward", f"verl has no reward function for data_source={source}", f"write {FUNCTION}.path=...")
    except Exception as error:
        return failure("reward", f"{name} raises on the first row: {described(error)}", "repair it")
    return _judged(subject, name, results)


def _call(function: Callable[..., Any], response: str, known: Mapping[str, Any]) -> Any:
    result = function(solution_str=response, **deepcopy(dict(known)))
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result


def _judged(subject: Subject, name: str, results: Mapping[str, Sequence[Any]]) -> Check:
    """Whether it can be trained on.

    Args:
        subject: of the run.
        name: of the function.
        results: what it gives for the right answer and for the wrong one, by form.
    """
    for result in chain.from_iterable(results.values()):
        if not isinstance(_score(result), int | float) and not hasattr(_score(result), "item"):
            return failure("reward", f"{name} gives {result!r}", "return a number, or a dict with a number as score")
    return _metric_problem(subject, name, next(iter(results.values()))[0]) or _compared(
        name, {form: (float(_score(right)), float(_score(wrong))) for form, (right, wrong) in results.items()}
    )


def _score(result: Any) -> Any:
    return result.get("score") if isinstance(result, Mapping) else result


def _metric_problem(subject: Subject, name: str, result: Any) -> Check | None:
    """What is wrong where groups are filtered by something that the function does not give."""
    keys = set(result) if isinstance(result, Mapping) else {"acc"}
    metric = subject.get(f"{FILTER}.metric") if subject.get(f"{FILTER}.enable") else None
    if metric is None or metric in keys | _verls_own_metric():
        return None
    found = f"{FILTER}.metric={metric}, but {name} gives {', '.join(sorted(keys))}"
    return failure("reward", found, f"return it, write the name of one of these, or {FILTER}.enable=False")


def _compared(name: str, scores: Mapping[str, tuple[float, float]]) -> Check:
    """The form in which the right answer stands out most, or a warning that it does in none."""
    better = {form: right - wrong for form, (right, wrong) in scores.items() if right > wrong}
    if better:
        form = max(better, key=better.__getitem__)
        right, wrong = scores[form]
        return ok(
            "reward", f"{name} gives {right:g} for the right answer of the first row {form}, {wrong:g} for a wrong one"
        )
    given = "; ".join(f"{form} {right:g}, a wrong one {wrong:g}" for form, (right, wrong) in scores.items())
    found = f"{name} gives the right answer of the first row no more than a wrong one: {given}"
    return warning("reward", found, "compare reward_model.ground_truth with the form of answer that the function wants")


def _verls_own_metric() -> set[str]:
    """What verl filters groups by without asking the function; verl 0.9.0 has nothing of the kind."""
    module = import_module("verl.trainer.ppo.v1.replay_buffer")
    return {getattr(module, "FILTER_GROUPS_REWARD_METRIC", "")} - {""}
