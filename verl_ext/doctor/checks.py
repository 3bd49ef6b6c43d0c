# SPDX-License-Identifier: Apache-2.0
"""One line of the report, and what turns a check that raises into one."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from verl_ext.errors import ConfigurationError


class Status(str, Enum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: how it came out.
        found: what was found.
        remedy: what to do; empty where nothing is to be done.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    """Nothing to do."""
    return Check(name, Status.OK, found)


def warning(name: str, found: str, remedy: str) -> Check:
    """It works, but not as it should, or it may not work."""
    return Check(name, Status.WARNING, found, remedy)


def failure(name: str, found: str, remedy: str) -> Check:
    """It does not work."""
    return Check(name, Status.FAILURE, found, remedy)


def guarded(name: str, produce: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks of `produce` and, where it raises, a failure called `name`; the traceback goes to stderr."""
    checks: list[Check] = []
    try:
        checks.extend(produce())
    except ConfigurationError as error:
        checks.append(failure(name, f"{error.key}={error.value}", one_line(error.remedy)))
    except Exception as error:
        traceback.print_exc()
        checks.append(failure(name, described(error), "verl-ext doctor --verbose shows where it comes from"))
    return checks


def described(error: BaseException) -> str:
    """An error in one line."""
    message = one_line(str(error))
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def one_line(text: str) -> str:
    """`text` without line breaks and repeated blanks."""
    return " ".join(text.split())
