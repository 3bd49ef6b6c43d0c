# SPDX-License-Identifier: Apache-2.0
"""Can the reward function be imported, and does it score a row of the training data?"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from importlib import import_module
from typing import Any

from verl_ext.integration.doctor.checks import Check, described, failure, ok
from verl_ext.integration.doctor.subject import Subject

FUNCTION = "reward.custom_reward_function"
FILTER = "algorithm.filter_groups"


def reward_checks(subject: Subject) -> Iterator[Check]:
    """Call it as verl's reward manager would, with the right answer as the response."""
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
    try:
        result = _call(function, source, truth, row.get("extra_info") or {})
    except NotImplementedError:
        return failure("reward", f"verl has no reward function for data_source={source}", f"write {FUNCTION}.path=...")
    except Exception as error:
        return failure("reward", f"{name} raises on the first row: {described(error)}", "repair it")
    return _judged(subject, name, result)


def _call(function: Callable[..., Any], source: Any, truth: Any, extra: Mapping[str, Any]) -> Any:
    result = function(data_source=source, solution_str=str(truth), ground_truth=truth, extra_info=dict(extra))
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result


def _judged(subject: Subject, name: str, result: Any) -> Check:
    score = result.get("score") if isinstance(result, Mapping) else result
    if not isinstance(score, int | float) and not hasattr(score, "item"):
        return failure("reward", f"{name} gives {result!r}", "return a number, or a dict with a number as score")
    keys = set(result) if isinstance(result, Mapping) else {"acc"}
    metric = subject.get(f"{FILTER}.metric") if subject.get(f"{FILTER}.enable") else None
    if metric is not None and metric not in keys | _verls_own_metric():
        found = f"{FILTER}.metric={metric}, but {name} gives {', '.join(sorted(keys))}"
        return failure("reward", found, f"return it, write the name of one of these, or {FILTER}.enable=False")
    return ok("reward", f"{name} gives {score:g} for the right answer of the first row alone")


def _verls_own_metric() -> set[str]:
    """What verl filters groups by without asking the function; verl 0.9.0 has nothing of the kind."""
    module = import_module("verl.trainer.ppo.v1.replay_buffer")
    return {getattr(module, "FILTER_GROUPS_REWARD_METRIC", "")} - {""}
