# SPDX-License-Identifier: Apache-2.0
"""The options of `verl_ext.rewards.math_answer`: what ``reward.custom_reward_function.reward_kwargs`` may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from sys import float_info

from verl_ext.errors import ConfigurationError

KEY = "reward.custom_reward_function.reward_kwargs"
VERL_KEYWORDS = ("reward_router_address", "reward_model_tokenizer")
"""Keywords that verl adds itself when there is a reward model; they are not used here."""


@dataclass(frozen=True)
class Options:
    """What a run can choose; the defaults are those of the papers, with no penalty of length."""

    format_weight: float = 0.1
    """Share of the format in the score; the rest is accuracy."""
    relative_tolerance: float = 0.0
    """Two numbers that differ by at most this times the larger of them are the same."""
    absolute_tolerance: float = 0.0
    """Two numbers that differ by at most this are the same."""
    seconds: float = 2.0
    """Processor seconds for one comparison of formulas."""
    overlong_limit: int = 0
    """Characters of a response from which the whole penalty is taken off; 0 for no penalty."""
    overlong_buffer: int = 0
    """Characters before the limit over which the penalty rises."""
    overlong_factor: float = 1.0
    """What is taken off the score of a response at the limit."""

    def __post_init__(self) -> None:
        _within(self, "format_weight", 0.0, 1.0)
        _within(self, "relative_tolerance", 0.0, 1.0)
        _within(self, "absolute_tolerance", 0.0, float_info.max)
        _within(self, "seconds", 0.01, 60.0)
        _within(self, "overlong_limit", 0, float_info.max)
        _within(self, "overlong_buffer", 1 if self.overlong_limit else 0, self.overlong_limit)
        _within(self, "overlong_factor", 0.0, float_info.max)

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, object]) -> Options:
        """Options of a call, less what verl adds. Raises ``ConfigurationError`` for an unknown or unusable one."""
        given = {name: value for name, value in keywords.items() if name not in VERL_KEYWORDS}
        names = [field.name for field in fields(cls)]
        for name, value in given.items():
            if name not in names:
                raise ConfigurationError(key=f"{KEY}.{name}", value=value, remedy=_suggestion(name, names))
        return cls(**given)  # type: ignore[arg-type]


def _within(options: Options, name: str, least: float, most: float) -> None:
    value = getattr(options, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and least <= value <= most):
        raise ConfigurationError(key=f"{KEY}.{name}", value=value, remedy=f"must lie between {least} and {most}")


def _suggestion(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"no such option; did you mean '{close[0]}'?" if close else f"no such option; there are {', '.join(names)}"
