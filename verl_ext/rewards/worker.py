# SPDX-License-Identifier: Apache-2.0
"""The process that compares formulas, started by `verl_ext.rewards.bounded`; nothing else imports this.

It reads requests from a socket and writes verdicts to it, until the other end closes. Text in a request comes
from a model: a request may use up its processor time, which ends the process, and may ask for too much memory,
which is refused; starting programs and opening sockets is refused whatever a library is talked into.
"""

import json
import logging
import math
import os
import re
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

MEMORY_BYTES = 1024**3
"""Address space of the process; sympy and the parser need about a tenth of it."""
REFUSED = ("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pty.", "socket.", "subprocess.")
"""Audit events that end a request: prefixes of names in Python's table of audit events."""
_LATEX = (LatexExtractionConfig(boxed_match_priority=0),)
"""With the first match alone, the whole answer is read or none of it, never a formula inside of it."""


def main(descriptor: int) -> None:
    """Serve the socket `descriptor` until its other end closes."""
    connection = Connection(descriptor)
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _same(r"\frac{1}{2}", "0.25", 0.1, 0.1)
    _same(r"\{1,2\}", "(1,2)", 0.0, 0.0)
    _confine()
    connection.send_bytes(b"ready")
    while True:
        try:
            request = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(_answered(json.loads(request)))


def _confine() -> None:
    """No more memory than `MEMORY_BYTES`, nothing written, no programs, no sockets, no messages."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(REFUSED):
        raise PermissionError(event)


def _answered(request: dict[str, Any]) -> bytes:
    """The verdict; the process ends by SIGPROF when it takes more than `seconds` of processor time."""
    signal.setitimer(signal.ITIMER_PROF, request.pop("seconds"))
    verdict = _same(**request)
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    return b"1" if verdict else b"0"


def _same(truth: str, answer: str, relative: float, absolute: float) -> bool:
    """Whether `answer` stands for the same as `truth`, or for a number within the tolerances of it."""
    expected, given = (_parsed(text) for text in (truth, answer))
    if not expected or not given or _contradicts_itself(given[0], answer):
        return False
    if verify(expected, given, allow_set_relation_comp=True, timeout_seconds=None):
        return True
    return _near(expected[0], given[0], relative, absolute)


def _parsed(text: str) -> list[Any]:
    """sympy's reading of the whole of a LaTeX text, in a list; an empty list where there is none."""
    return parse(
        f"\\boxed{{{text}}}",
        _LATEX,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )


def _contradicts_itself(given: Any, answer: str) -> bool:
    """Whether an equation of two numbers in `given`, the reading of `answer`, is false; the right side may be rounded.

    Equations with trigonometric functions are passed over, since the degrees of their angles are lost in reading.
    """
    equations = set() if getattr(given, "is_Matrix", True) else given.find(_joins_numbers)
    slack = _rounding(answer)
    return any(not (one.find(_is_trigonometric) or _distance(one.lhs, one.rhs) <= slack) for one in equations)


def _joins_numbers(part: Any) -> bool:
    return getattr(part, "rel_op", None) == "==" and part.lhs.is_number and part.rhs.is_number


def _is_trigonometric(part: Any) -> bool:
    return type(part).__module__.endswith(".trigonometric")


def _rounding(answer: str) -> float:
    """Half a unit of the last decimal after the last equals sign, at least what math-verify takes for equal."""
    decimals = re.search(r"\.([0-9]+)", answer.rpartition("=")[2])
    return max(0.51 * 10.0 ** -len(decimals[1]), 1e-6) if decimals else 1e-6


def _distance(one: Any, other: Any) -> float:
    """How far apart two numbers are, infinity or nan where that cannot be computed."""
    try:
        return abs(complex(one - other))
    except (TypeError, ValueError, OverflowError):
        return math.inf


def _near(expected: Any, given: Any, relative: float, absolute: float) -> bool:
    """Whether both are numbers and differ by no more than the tolerances allow."""
    if not (relative or absolute):
        return False
    try:
        return math.isclose(float(expected), float(given), rel_tol=relative, abs_tol=absolute)
    except (TypeError, ValueError, OverflowError):
        return False


if __name__ == "__main__":
    main(int(sys.argv[1]))
