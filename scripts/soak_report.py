# SPDX-License-Identifier: Apache-2.0
"""What a soak showed: slopes of memory, files that stayed, drift and speed, as Markdown and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any

import numpy as np
from scipy import stats
from soak_samples import TRAINING_ROLES

from verl_ext.report.metrics_file import Step

CORRELATION = "perception/rollout_actor_log_prob_corr"
SECONDS = "timing_s/step"
BLOCKS = 20
PER_STEPS = 100
WARM_UP = 0.1
NEGLIGIBLE = 0.01
Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Slope:
    """A line through measurements: change per 100 steps, half the width of its 95 % interval, medians of the ends."""

    per_100_steps: float
    half_width: float
    first: float
    last: float

    @property
    def is_flat(self) -> bool:
        """Whether the interval contains no change, or no more than 1 % of the first median."""
        least = max(0.0, abs(self.per_100_steps) - self.half_width)
        most = abs(self.per_100_steps) + self.half_width
        return least == 0 or most <= NEGLIGIBLE * abs(self.first)


def slope(steps: Sequence[float], values: Sequence[float]) -> Slope | None:
    """Theil and Sen's line through at most 20 medians of neighbouring measurements; None for less than three.

    Neighbouring samples of memory hang together, so that a line through all of them would claim too narrow an interval.
    Where a process needs more for moments, a mean says how many of these were hit, while a leak raises the median.
    """
    blocks = min(BLOCKS, len(steps))
    if blocks < 3 or np.ptp(steps) == 0:
        return None
    x, y = (
        np.array([np.median(part) for part in np.array_split(np.asarray(a, float), blocks)]) for a in (steps, values)
    )
    first, last = float(y[0]), float(y[-1])
    if np.ptp(y) == 0:
        return Slope(0.0, 0.0, first, last)
    line = stats.theilslopes(y, x, alpha=0.95)
    width = max(line.high_slope - line.slope, line.slope - line.low_slope)
    return Slope(PER_STEPS * float(line.slope), PER_STEPS * float(width), first, last)


def settled(samples: Sequence[Sample], steps: int) -> list[Sample]:
    """The samples of the longest uninterrupted attempt behind its warm-up, a tenth of the `steps` of the whole run.

    A resumed run starts with empty processes, so samples of two attempts are not on one line. Those behind an attempt's
    last step are of processes that end.
    """
    if not samples:
        return []
    attempt, _ = Counter(sample["attempt"] for sample in samples).most_common(1)[0]
    own = [sample for sample in samples if sample["attempt"] == attempt]
    begin = next((sample["step"] for sample in own if sample["step"] > 0), 0) + WARM_UP * steps
    return [sample for sample in own if begin <= sample["step"] < own[-1]["step"]]


def by_role(samples: Sequence[Sample], measured: str) -> dict[str, Slope | None]:
    """The slope of what each role held, over the samples that have the role."""
    names = sorted({name for sample in samples for name in sample["roles"]})
    found = {}
    for name in names:
        of_role = [sample for sample in samples if name in sample["roles"]]
        found[name] = slope([s["step"] for s in of_role], [s["roles"][name][measured] for s in of_role])
    return found


def processes(samples: Sequence[Sample]) -> dict[str, int]:
    """How many processes a role usually has: one that just started another is seen twice for a moment."""
    names = {name for sample in samples for name in sample["roles"]}
    return {
        name: median_low([sample["roles"][name]["processes"] for sample in samples if name in sample["roles"]])
        for name in sorted(names)
    }


def figures(samples: Sequence[Sample], steps: Sequence[Step], ends: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that the report says, as plain numbers.

    Args:
        samples: as written to `samples.jsonl`.
        steps: (number, metrics) of the run.
        ends: what was left at the end of each attempt.
    """
    used = settled(samples, steps[-1][0] if steps else 0)
    later = used[len(used) // 2 :]
    correlation = [(number, data[CORRELATION]) for number, data in steps if CORRELATION in data]
    seconds = [data[SECONDS] for _, data in steps[1:] if SECONDS in data]
    fifth = max(1, len(seconds) // 5)
    return {
        "steps": steps[-1][0] if steps else 0,
        "attempts": len({sample["attempt"] for sample in samples}),
        "samples_used": len(used),
        "first_step_used": used[0]["step"] if used else None,
        "first_step_later": later[0]["step"] if later else None,
        "memory_mb": {name: _plain(line) for name, line in by_role(used, "uss_mb").items()},
        "memory_mb_later": {name: _plain(line) for name, line in by_role(later, "uss_mb").items()},
        "shared_mb": {name: _plain(line) for name, line in by_role(used, "pss_mb").items()},
        "fds": {name: _plain(line) for name, line in by_role(used, "fds").items()},
        "threads": {name: _plain(line) for name, line in by_role(used, "threads").items()},
        "processes": processes(used),
        "sizes_mb": {key: _plain(_of(used, key)) for key in ("run_mb", "ray_session_mb")},
        "files": {key: _plain(_of(used, key)) for key in ("shared_memory_files", "temporary_files")},
        "lowest_correlation": min((value for _, value in correlation), default=None),
        "correlation": _plain(slope(*map(list, zip(*correlation, strict=True))) if correlation else None),
        "seconds_a_step": {"first_fifth": _mean(seconds[:fifth]), "last_fifth": _mean(seconds[-fifth:])},
        "ends": list(ends),
    }


def _of(samples: Sequence[Sample], key: str) -> Slope | None:
    return slope([sample["step"] for sample in samples], [sample[key] for sample in samples])


def _plain(line: Slope | None) -> dict[str, Any] | None:
    return None if line is None else {**asdict(line), "is_flat": line.is_flat}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def markdown(found: Mapping[str, Any]) -> str:
    """The report, for people."""
    parts = [_head(found), _memory_table(found), _other(found), _left(found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(found: Mapping[str, Any]) -> str:
    return (
        f"# Soak\n\n{found['steps']} steps in {found['attempts']} attempt(s). Memory is what a process alone holds "
        f"(USS); slopes are from {found['samples_used']} samples from step {found['first_step_used']} on, with a 95 % "
        f"interval. Flat: from step {found['first_step_later']} on, where working sets are full and only a leak still "
        f"grows, the interval contains 0 or at most {NEGLIGIBLE:.0%} of the memory. {_verdict(found)}"
    )


def _verdict(found: Mapping[str, Any]) -> str:
    """Of the processes that train."""
    lines = {
        name: line for name, line in found["memory_mb_later"].items() if name in TRAINING_ROLES and line is not None
    }
    changing = [name for name, line in lines.items() if not line["is_flat"]]
    if not lines:
        return "Too few samples for a slope."
    flat = f"{len(lines) - len(changing)} of the {len(lines)} kinds of process that train are flat"
    return f"{flat}; not flat: {', '.join(changing)}." if changing else f"{flat}."


def _memory_table(found: Mapping[str, Any]) -> str:
    rows = [
        "| role | number | MB, first | MB, last | MB per 100 steps | second half | flat | descriptors | threads |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, line in found["memory_mb"].items():
        ends = [_ends(found[key][name], digits=0) for key in ("fds", "threads")]
        count = found["processes"][name]
        first, last = ("-", "-") if line is None else (f"{line['first']:.1f}", f"{line['last']:.1f}")
        later = found["memory_mb_later"].get(name)
        flat = "-" if later is None else "yes" if later["is_flat"] else "no"
        memory = f"{first} | {last} | {_change(line)} | {_change(later)}"
        rows.append(f"| {name} | {count} | {memory} | {flat} | {ends[0]} | {ends[1]} |")
    return "\n".join(rows)


def _other(found: Mapping[str, Any]) -> str:
    seconds, correlation = found["seconds_a_step"], found["correlation"]
    return "\n".join(
        [
            "| what | first to last | per 100 steps |",
            "| --- | --- | --- |",
            *(
                f"| {label} | {_ends(found[group][key])} | {_change(found[group][key])} |"
                for group, key, label in (
                    ("sizes_mb", "run_mb", "run's folder, MB"),
                    ("sizes_mb", "ray_session_mb", "Ray's session, MB"),
                    ("files", "shared_memory_files", "files in /dev/shm"),
                    ("files", "temporary_files", "files in the temporary folder"),
                )
            ),
            f"| rollout and actor log-probabilities, correlation (lowest {_number(found['lowest_correlation'], 6)}) "
            f"| {_ends(correlation, digits=6)} | {_change(correlation, digits=6)} |",
            f"| seconds a step, first and last fifth | {_number(seconds['first_fifth'], 2)} to "
            f"{_number(seconds['last_fifth'], 2)} | |",
        ]
    )


def _left(found: Mapping[str, Any]) -> str:
    rows = ["| left behind at the end of attempt | name | how many | held by |", "| --- | --- | --- | --- |"]
    for number, end in enumerate(found["ends"], start=1):
        for place in ("shared_memory", "temporary"):
            for name, entry in end[place].items():
                where = "/dev/shm/" if place == "shared_memory" else ""
                rows.append(f"| {number} | `{where}{name}` | {entry['count']} | {', '.join(entry['roles']) or '-'} |")
        rows.append(f"| {number} | processes | {end['processes']} | |")
        strangers = end["strangers_in_shared_memory"]
        rows.append(f"| {number} | files in /dev/shm that no process of the run had open | {strangers} | |")
    return "\n".join(rows) if found["ends"] else ""


def _change(line: Mapping[str, float] | None, digits: int = 2) -> str:
    return "-" if line is None else f"{line['per_100_steps']:+.{digits}f} ± {line['half_width']:.{digits}f}"


def _ends(line: Mapping[str, float] | None, digits: int = 1) -> str:
    return "-" if line is None else f"{line['first']:.{digits}f} to {line['last']:.{digits}f}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
