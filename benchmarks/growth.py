# SPDX-License-Identifier: Apache-2.0
"""What perception methods add to vanilla verl's old-log-prob pass as batch, responses, images and ranks grow.

Everything is a share of vanilla verl's pass over the same rows, in the same round. "our clean pass" is verl's pass
under a method that measures nothing in it, "similarity" what measuring PEPO's adds to that, and the ablated passes
come on top. Every line belongs to processes of its own, one a rank, with the same number of rows each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from actors import ON_CPU, Actors, Rows, add_model_options, model_config, response_only, write_model
from common import Ratio, print_table, rounds
from support import workers

NAMES = ("vanilla", "clean", "similarity", "drop_vision", "random_patch")


@dataclass(frozen=True)
class Point:
    """The rows of one rank, and how many ranks there are."""

    rows: int
    response: int
    images: int
    ranks: int


def points(given: argparse.Namespace) -> Iterator[tuple[str, Point]]:
    """(what grows, point), each axis from the smallest values on."""
    base = Point(given.rows[0], given.response[0], given.images[0], 1)
    for axis in ("rows", "response", "images", "ranks"):
        for value in getattr(given, axis):
            yield axis, replace(base, **{axis: value})


def measure(given: argparse.Namespace, folder: Path, point: Point) -> dict[str, list[float]]:
    """Seconds of each pass in each round, of the slowest rank."""
    port, out = str(workers.free_port()), folder / "seconds.json"
    command = [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder), "--point", json.dumps(asdict(point))]
    processes = [
        subprocess.Popen([*command, "--out", f"{out}{rank}"], env=environment(rank, port, max(given.ranks)))
        for rank in range(point.ranks)
    ]
    if any([process.wait() for process in processes]):
        raise SystemExit(f"growth: a rank of {point} failed")
    ranks = [json.loads(Path(f"{out}{rank}").read_text()) for rank in range(point.ranks)]
    return {name: [max(times) for times in zip(*(rank[name] for rank in ranks), strict=True)] for name in NAMES}


def environment(rank: int, port: str, most_ranks: int) -> dict[str, str]:
    """Of one rank: an accelerator of its own, or as many of the processor's cores with few ranks as with many."""
    cores = max(1, (os.cpu_count() or 1) // most_ranks)
    share = {"OMP_NUM_THREADS": str(cores)} if ON_CPU else {"CUDA_VISIBLE_DEVICES": str(rank)}
    return {**os.environ, **share, "RANK": str(rank), "MASTER_PORT": port}


def run_rank(given: argparse.Namespace) -> None:
    """One rank of one point: write its seconds."""
    point = Point(**json.loads(given.point))
    workers.rendezvous(int(os.environ["RANK"]), point.ranks, os.environ["MASTER_PORT"])
    actors = Actors(given.folder, [*given.overrides, f"trainer.n_gpus_per_node={point.ranks}"], given.micro_batch)
    vanilla = actors.build("vanilla", "algorithm.adv_estimator=grpo")
    pgpo, papo, pepo = (
        actors.build("ours", f"+perception={group}", response_only(not given.all_logits))
        for group in ("pgpo", "papo_g", "pepo_g")
    )
    clean, ablated = actors.clean, actors.ablated
    passes = [clean(vanilla), clean(pgpo), clean(pepo), ablated(pgpo), ablated(papo)]
    make = Rows(model_config(given.model, given.layers))
    rows = make(point.rows, image=given.image, text=given.text, response=point.response, images=point.images)
    seconds = rounds({name: partial(call, rows) for name, call in zip(NAMES, passes, strict=True)}, given.rounds)
    given.out.write_text(json.dumps(seconds))
    torch.distributed.destroy_process_group()


def line(axis: str, point: Point, seconds: dict[str, list[float]]) -> list[object]:
    vanilla, clean = seconds["vanilla"], seconds["clean"]
    similarity = [on - off for on, off in zip(seconds["similarity"], clean, strict=True)]
    added = [clean, similarity, seconds["drop_vision"], seconds["random_patch"]]
    sizes = [f"**{value}**" if name == axis else value for name, value in asdict(point).items()]
    return [*sizes, f"{statistics.median(vanilla):.2f}", *(Ratio.between(values, vanilla) for values in added)]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8], help="rows of each rank")
    parser.add_argument("--response", type=int, nargs="+", default=[256, 512, 1024, 2048], help="response tokens")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4], help="images in each prompt")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--image", type=int, default=256, help="tokens of each image")
    parser.add_argument("--text", type=int, default=128, help="text tokens of the prompt")
    parser.add_argument("--all-logits", action="store_true", help="make logits of all tokens, not of responses only")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two values on each axis, fewer rounds")
    for hidden, kind in (("--folder", Path), ("--out", Path), ("--point", str)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    add_model_options(parser)
    given = parser.parse_args()
    if given.quick:
        given.rounds = min(given.rounds, 3)
        given.rows, given.response, given.images = (x[:2] for x in (given.rows, given.response, given.images))
    if not ON_CPU:
        given.ranks = [count for count in given.ranks if count <= torch.cuda.device_count()]
    return given


def main() -> None:
    given = parse()
    if given.point:
        return run_rank(given)
    measured: dict[Point, dict[str, list[float]]] = {}
    table = []
    with tempfile.TemporaryDirectory() as name:
        folder = write_model(Path(name), model_config(given.model, given.layers))
        for axis, point in points(given):
            if point not in measured:
                measured[point] = measure(given, folder, point)
            table.append(line(axis, point, measured[point]))
    header = ["rows", "response", "images", "ranks", "vanilla verl, s", "our clean pass", "+ similarity"]
    logits = "all" if given.all_logits else "response"
    title = f"Shares of vanilla verl's old-log-prob pass, logits of {logits} tokens, {given.image} tokens an image, "
    print_table(
        [*header, "+ drop_vision pass", "+ random_patch pass"],
        table,
        f"{title}{given.text} text tokens: median (quartiles) of {given.rounds} rounds",
    )


if __name__ == "__main__":
    main()
