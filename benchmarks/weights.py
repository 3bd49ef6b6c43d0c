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

from verl_ext.methods import papo, pepo, pgpo, tor, vepo, vgpo, vppo

ROWS, COLUMNS, GROUP = 512, 2048, 8
LOOP_ROWS = 16
MOST_MILLISECONDS = 50.0
LEAST_RATIO = 50.0


@dataclass(frozen=True)
class Batch:
    """What the methods read, (B, T) each but for `has_image` and `groups`: a ragged right-padded batch.

    Divergences are positive and skewed, `focus` is like a cosine, log-probabilities are negative.
    """

    dependency: Tensor
    focus: Tensor
    entropy: Tensor
    change: Tensor
    log_prob: Tensor
    ablated: Tensor
    mask: Tensor
    has_image: Tensor
    groups: Tensor

    def rows(self, count: int) -> Batch:
        return Batch(*(tensor[:count] for tensor in vars(self).values()))


Lists = list[list[float]]


@dataclass(frozen=True)
class Case:
    """One method: its tensor functions, the signals that the loop reads, and the loop over one list a response."""

    name: str
    vectorised: Callable[[Batch], object]
    signals: tuple[str, ...]
    loop: Callable[..., object]


def vppo_tensors(b: Batch) -> object:
    given = (b.dependency, b.mask)
    return vppo.token_mask(*given, has_image=b.has_image), vppo.trajectory_factors(*given, has_image=b.has_image)


def vppo_loop(b: Batch, responses: Lists) -> object:
    return [reference.vppo_mask(scores) for scores in responses], reference.vppo_factors(
        responses, b.has_image.tolist()
    )


def vgpo_tensors(b: Batch) -> object:
    weights = vgpo.visual_weights(b.focus, b.mask)
    tokens = vgpo.token_factors(weights, b.mask, has_image=b.has_image)
    return tokens, vgpo.trajectory_factors(weights, b.mask, b.groups, has_image=b.has_image)


def vgpo_loop(b: Batch, responses: Lists) -> object:
    lowest = min(min(scores) for scores in responses)
    weights = [reference.vgpo_weights(scores, lowest) for scores in responses]
    factors = [reference.vgpo_token_factors(row) for row in weights]
    return factors, reference.vgpo_trajectory_factors(weights, b.groups.tolist(), b.has_image.tolist())


def vepo_tensors(b: Batch) -> object:
    return vepo.token_mask(vepo.token_scores(b.dependency, b.change, b.entropy, b.mask), b.mask, has_image=b.has_image)


def each(function: Callable[..., object]) -> Callable[..., object]:
    """A loop that handles one response after another."""
    return lambda _batch, *signals: [function(*rows) for rows in zip(*signals, strict=True)]


CASES = [
    Case(
        "pgpo",
        lambda b: pgpo.token_weights(b.dependency, b.mask),
        ("dependency",),
        each(lambda scores: reference.pgpo_weights(scores, 0.4, 2.0, "absolute", 0.0, True)),
    ),
    Case(
        "pepo",
        lambda b: pepo.token_weights(b.focus, b.entropy, b.mask, has_image=b.has_image),
        ("focus", "entropy"),
        each(reference.pepo_weights),
    ),
    Case("vgpo", vgpo_tensors, ("focus",), vgpo_loop),
    Case("vppo", vppo_tensors, ("dependency",), vppo_loop),
    Case(
        "tor",
        lambda b: tor.token_weights(b.entropy, b.dependency, b.mask, has_image=b.has_image),
        ("entropy", "dependency"),
        lambda b, entropy, difference: reference.tor_weights(entropy, difference, b.has_image.tolist()),
    ),
    Case(
        "vepo",
        vepo_tensors,
        ("dependency", "change", "entropy"),
        each(lambda *signals: reference.vepo_mask(reference.vepo_scores(*signals))),
    ),
    Case(
        "papo",
        lambda b: papo.perception_values(b.log_prob, b.ablated, b.mask, has_image=b.has_image),
        ("log_prob", "ablated"),
        each(reference.papo_values),
    ),
]


def random_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(ROWS, COLUMNS, generator=generator)

    log_ratio, lengths = 0.3 * normal(), torch.randint(COLUMNS // 2, COLUMNS + 1, (ROWS, 1), generator=generator)
    return Batch(
        dependency=log_ratio.exp() - log_ratio - 1.0,
        focus=0.3 + 0.1 * normal(),
        entropy=normal().abs(),
        change=0.1 * normal().abs(),
        log_prob=-normal().abs(),
        ablated=-normal().abs(),
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
    few, scale = batch.rows(LOOP_ROWS), ROWS / LOOP_ROWS

    def ready() -> list[Lists]:
        return [read(getattr(few, name), few.mask) for name in case.signals]

    responses = ready()
    return (
        best(lambda: case.vectorised(batch), runs),
        scale * best(lambda: case.loop(few, *ready()), 3),
        scale * best(lambda: case.loop(few, *responses), 3),
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
