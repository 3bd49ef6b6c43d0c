# SPDX-License-Identifier: Apache-2.0
"""Similarity to the image as the layers run, against keeping all hidden states and comparing all pairs of tokens.

The reference works as the release of PEPO does: the states of all layers are kept until the pass is over; then, layer
by layer, response and image tokens are scaled to unit length, multiplied into a response x image matrix, and averaged.

Both sides are fed by the same generator of states, one layer after another, and what counts is time and memory beyond
a side that only lets the states go by. Exit status 1 if the reference takes less than 8 times as long, or less than 10
times as much extra memory.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from common import Limit, Ratio, exit_status, print_table, rounds
from torch import Tensor
from torch.nn.functional import normalize

from verl_ext.signals.layer_similarity import SimilarityAccumulator
from verl_ext.signals.layout import TokenLayout

LEAST_TIMES_FASTER, LEAST_TIMES_LESS_MEMORY = 8.0, 10.0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Forward:
    """A forward pass over one sequence of image, text and response tokens."""

    image: int
    text: int
    response: int
    width: int
    layers: int
    dtype: torch.dtype
    device: str

    def states(self) -> Iterator[Tensor]:
        """The embeddings and every layer's states (1, L, D), each a tensor of its own, all different."""
        generator = torch.Generator().manual_seed(0)
        embeddings = torch.randn(1, self.image + self.text + self.response, self.width, generator=generator)
        embeddings = embeddings.to(self.device, self.dtype)
        for layer in range(self.layers + 1):
            yield torch.add(embeddings, 0.1 * layer)

    @property
    def layout(self) -> TokenLayout:
        length = self.image + self.text + self.response
        tokens = torch.arange(length - self.response, length, device=self.device)
        images = torch.arange(self.image, device=self.device)
        return TokenLayout(tokens, torch.zeros_like(tokens), images, torch.zeros_like(images), rows=1)


def nothing(_forward: Forward, states: Iterable[Tensor]) -> None:
    """Let every layer go by: what a pass without the signal does."""
    for layer in states:
        del layer


def ours(forward: Forward, states: Iterable[Tensor]) -> Tensor:
    """(T,) by the accumulator."""
    accumulator = SimilarityAccumulator(forward.layout)
    for layer in states:
        accumulator.add(layer)
        del layer
    return accumulator.result()


def reference(forward: Forward, states: Iterable[Tensor]) -> Tensor:
    """(T,) from all states and all pairs."""
    kept = list(states)
    total = torch.zeros(forward.response, device=forward.device)
    for layer in kept:
        image = normalize(layer[0, : forward.image], dim=-1)
        response = normalize(layer[0, -forward.response :], dim=-1)
        total += (response @ image.T).mean(dim=-1)
    return total / len(kept)


SIDES: dict[str, Callable[[Forward, Iterable[Tensor]], object]] = {
    "nothing": nothing,
    "ours": ours,
    "reference": reference,
}


def extra_seconds(forward: Forward, count: int) -> dict[str, list[float]]:
    """Seconds of either side beyond those of letting the states go by, in each round."""
    gross = rounds({name: lambda side=side: side(forward, forward.states()) for name, side in SIDES.items()}, count)
    return {
        name: [all_ - common for all_, common in zip(gross[name], gross["nothing"], strict=True)]
        for name in ("ours", "reference")
    }


def peak_bytes(forward: Forward, name: str) -> int:
    """The highest memory so far of this process, or of the accelerator, after one run of that side."""
    SIDES[name](forward, forward.states())
    if forward.device == "cuda":
        return torch.cuda.max_memory_allocated()
    # Not getrusage: what that says of a new process includes its parent.
    high_water = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert high_water
    return 1024 * int(high_water[1])


def peaks(arguments: list[str]) -> dict[str, int]:
    """Peak bytes of each side, each in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--peak"]
    # What is freed goes back to the system at once, so that the process's memory is that of its tensors.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)}
    return {name: int(subprocess.check_output([*command, name], env=environment, text=True)) for name in SIDES}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=int, default=1024, help="image tokens")
    parser.add_argument("--text", type=int, default=128, help="text tokens")
    parser.add_argument("--response", type=int, default=1024, help="response tokens")
    parser.add_argument("--width", type=int, default=3584, help="hidden size")
    parser.add_argument("--layers", type=int, default=28, help="decoder layers; the embeddings come on top")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=device)
    parser.add_argument("--dtype", choices=DTYPES, default="float32" if device == "cpu" else "bfloat16")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--peak", choices=SIDES, help="only print the peak memory of one side")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    given = parse(arguments)
    sizes = (given.image, given.text, given.response, given.width, given.layers)
    forward = Forward(*sizes, DTYPES[given.dtype], given.device)
    if given.peak:
        print(peak_bytes(forward, given.peak))
        return 0
    tolerance = 1e-5 if given.dtype == "float32" else 1e-2
    torch.testing.assert_close(*(s(forward, forward.states()) for s in (ours, reference)), atol=tolerance, rtol=0)
    seconds = extra_seconds(forward, given.rounds)
    peak = peaks(arguments)
    extra = {name: peak[name] - peak["nothing"] for name in seconds}
    faster = Ratio.between(seconds["reference"], seconds["ours"])
    less = extra["reference"] / max(1, extra["ours"])
    table = [[name, f"{1e3 * Ratio.of(seconds[name]).median:.0f}", f"{extra[name] / 2**20:.0f}"] for name in seconds]
    title = f"{given.image} image, {given.response} response tokens, width {given.width}, {given.layers} layers, "
    print_table(
        ["", "extra ms", "extra MiB"],
        [*table, ["reference over ours", faster, f"{less:.1f}"]],
        f"{title}{given.dtype}, {given.device}",
    )
    bounds = [(faster.median, LEAST_TIMES_FASTER, "extra time"), (less, LEAST_TIMES_LESS_MEMORY, "extra memory")]
    return exit_status([Limit(f"{what}, reference over ours", x, bound, least=True) for x, bound, what in bounds])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
