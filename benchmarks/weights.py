# SPDX-License-Identifier: Apache-2.0
"""Time of the methods' tensor functions for 512 x 2048 tokens on one core, against a plain loop over the tokens.

Run as `python benchmarks/weights.py`. Exit status 1 if a method takes more than 50 ms, or the loop less than 50 times
as long.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import reference

from verl_ext.methods import pgpo, vgpo, vppo

ROWS, COLUMNS, GROUP = 512, 2048, 8
LOOP_ROWS = 16
MOST_MILLISECONDS = 50.0
LEAST_RATIO = 50.0


@dataclass(frozen=True)
class Batch:
    """What the methods read: k3-like dependency, cosine-like focus, ragged right-padded mask."""

    dependency: Tensor
    focus: Tensor
    mask: Tensor
    has_image: Tensor
    groups: Tensor

    def rows(self, count: int) -> Batch:
        return Batch(*(tensor[:count] for tensor in vars(self).values()))


Lists = list[list[float]]


@dataclass(frozen=True)
class Case:
    """One method: its tensor functions, the signal that the loop reads, and the loop over one list a response."""

    name: str
    vectorised: Callable[[Batch], object]
    signal: str
    loop: Callable[[Lists, Batch], object]


def vppo_tensors(batch: Batch) -> object:
    given = (batch.dependency, batch.mask)
    return vppo.token_mask(*given, has_image=batch.has_image), vppo.trajectory_factors(
        *given, has_image=batch.has_image
    )


def vppo_loop(responses: Lists, batch: Batch) -> object:
    masks = [reference.vppo_mask(scores) for scores in responses]
    return masks, reference.vppo_factors(responses, batch.has_image.tolist())


def vgpo_tensors(batch: Batch) -> object:
    weights = vgpo.visual_weights(batch.focus, batch.mask)
    given = {"has_image": batch.has_image}
    return (
        vgpo.token_factors(weights, batch.mask, **given),
        vgpo.trajectory_factors(weights, batch.mask, batch.groups, **given),
    )


def vgpo_loop(responses: Lists, batch: Batch) -> object:
    lowest = min(min(scores) for scores in responses)
    weights = [reference.vgpo_weights(scores, lowest) for scores in responses]
    factors = [reference.vgpo_token_factors(row) for row in weights]
    return factors, reference.vgpo_trajectory_factors(weights, batch.groups.tolist(), batch.has_image.tolist())


def pgpo_loop(responses: Lists, _: Batch) -> object:
    return [reference.pgpo_weights(scores, 0.4, 2.0, "absolute", 0.0, True) for scores in responses]


CASES = [
    Case("pgpo", lambda batch: pgpo.token_weights(batch.dependency, batch.mask), "dependency", pgpo_loop),
    Case("vppo", vppo_tensors, "dependency", vppo_loop),
    Case("vgpo", vgpo_tensors, "focus", vgpo_loop),
]


def random_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    log_ratio = 0.3 * torch.randn(ROWS, COLUMNS, generator=generator)
    lengths = torch.randint(COLUMNS // 2, COLUMNS + 1, (ROWS, 1), generator=generator)
    return Batch(
        dependency=log_ratio.exp() - log_ratio - 1.0,
        focus=0.3 + 0.1 * torch.randn(ROWS, COLUMNS, generator=generator),
        mask=torch.arange(COLUMNS) < lengths,
        has_image=torch.ones(ROWS, dtype=torch.bool),
        groups=torch.arange(ROWS) // GROUP,
    )


def read(values: Tensor, mask: Tensor) -> Lists:
    """The valid values of each row, element by element."""
    return [[row[t].item() for t in range(len(row)) if kept[t]] for row, kept in zip(values, mask, strict=True)]


def best(call: Callable[[], object], runs: int) -> float:
    """Milliseconds of processor time of the fastest of `runs` runs, after one that does not count."""
    call()
    times = []
    for _ in range(runs):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def measure(case: Case, batch: Batch, runs: int) -> tuple[float, float, float]:
    """Milliseconds for the whole batch: tensor functions, the loop, and of the loop the arithmetic alone."""
    few = batch.rows(LOOP_ROWS)
    signal = getattr(few, case.signal)
    responses = read(signal, few.mask)
    scale = ROWS / LOOP_ROWS
    return (
        best(lambda: case.vectorised(batch), runs),
        scale * best(lambda: case.loop(read(signal, few.mask), few), 3),
        scale * best(lambda: case.loop(responses, few), 3),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="the fastest of so many runs counts")
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    batch = random_batch()
    print(f"{ROWS} x {COLUMNS} float32, one core; the loop is measured on {LOOP_ROWS} rows and scaled to {ROWS}.\n")
    print("| method | tensors, ms | loop, ms | ratio | loop on ready lists, ms | ratio |")
    print("|---|---|---|---|---|---|")
    slow = False
    for case in CASES:
        fast, loop, arithmetic = measure(case, batch, runs)
        ratios = loop / fast, arithmetic / fast
        print(f"| {case.name} | {fast:.1f} | {loop:.0f} | {ratios[0]:.0f} | {arithmetic:.0f} | {ratios[1]:.0f} |")
        slow |= fast > MOST_MILLISECONDS or ratios[0] < LEAST_RATIO
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
