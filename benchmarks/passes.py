# SPDX-License-Identifier: Apache-2.0
"""Time of the passes that perception methods add, over vanilla verl's old-log-prob pass, through verl's own engine.

Two parts. The first runs the pass over every kind of ablated view, as images and responses grow. The second compares
verl's pass with the similarity measured in it against the same pass without, on the same weights. Both with logits of
all tokens and of response tokens only. Exit status 1 if a limit is broken; they belong to images of 1024 tokens,
prompts of 128 and responses of 512.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from actors import Actors, Pass, Rows, add_model_options, model_config, response_only, write_model
from common import Limit, Ratio, exit_status, print_table, rounds
from support import workers

from verl_ext.ablation.spec import KINDS
from verl_ext.models.vision_tower import fit_vision_tower

VANILLA = "vanilla verl"
LOGITS = {False: "all", True: "response"}
LIMITS_AT = (1024, 128, 512)
SWEEP = [(0, 512), (256, 512), (1024, 512), (2048, 512), (1024, 256), (1024, 1024), (1024, 2048)]
QUICK = [(0, 256), (256, 256), (1024, 512)]


def ablated_passes(actors: Actors, kinds: list[str]) -> dict[str, Pass]:
    """By name: vanilla verl's clean pass, ours, and the pass over each ablated view."""
    vanilla = actors.build("vanilla", "algorithm.adv_estimator=grpo")
    # Without it verl cannot run a micro-batch that has no image.
    fit_vision_tower(vanilla.actor.engine.module)
    passes = {VANILLA: actors.clean(vanilla)}
    for short, logits in LOGITS.items():
        for kind in kinds:
            worker = actors.build(logits, "+perception=pgpo", f"perception.ablation.kind={kind}", response_only(short))
            passes.setdefault(f"clean, {logits}", actors.clean(worker))
            passes[f"{kind}, {logits}"] = actors.ablated(worker)
    return passes


def similarity_passes(actors: Actors) -> dict[str, Pass]:
    """By name: our clean pass without similarity, the same once more, and with each similarity."""
    groups = {"off": "pgpo", "off again": "pgpo", "pepo": "pepo_g", "vgpo": "vgpo"}
    return {
        f"{name}, {logits}": actors.clean(actors.build(logits, f"+perception={group}", response_only(short)))
        for short, logits in LOGITS.items()
        for name, group in groups.items()
    }


def on_rows(passes: dict[str, Pass], rows: list, count: int) -> dict[str, list[float]]:
    return rounds({name: partial(call, rows) for name, call in passes.items()}, count)


def ablation_tables(given: argparse.Namespace, actors: Actors, rows: Rows) -> dict[str, Ratio]:
    """Print one table for each kind of logits; the ratios at the sizes that the limits belong to."""
    passes = ablated_passes(actors, given.kinds)
    points = {}
    for image, response in given.points:
        batch = rows(given.rows, image=image, text=given.text, response=response)
        seconds = on_rows(passes, batch, given.rounds)
        points[image, given.text, response] = seconds
        print(f"{image} image, {response} response tokens: done", file=sys.stderr)
    header = ["image", "response", "vanilla verl, s", "our clean pass", *given.kinds]
    for logits in LOGITS.values():
        table = []
        for (image, _, response), seconds in points.items():
            vanilla = seconds[VANILLA]
            cells = [Ratio.between(seconds[f"{name}, {logits}"], vanilla) for name in ("clean", *given.kinds)]
            table.append([image, response, f"{statistics.median(vanilla):.2f}", *cells])
        title = f"Over vanilla verl's old-log-prob pass, logits of {logits} tokens, {given.rows} rows, "
        print_table(header, table, f"{title}{given.text} text tokens: median (quartiles) of {given.rounds} rounds")
    limited = points.get(LIMITS_AT, {})
    return {name: Ratio.between(seconds, limited[VANILLA]) for name, seconds in limited.items()}


def similarity_table(given: argparse.Namespace, actors: Actors, rows: Rows) -> dict[str, Ratio]:
    """Print the clean pass with similarity over the same without."""
    image, response = given.points[-1] if LIMITS_AT[::2] not in given.points else LIMITS_AT[::2]
    batch = rows(1, image=image, text=given.text, response=response)
    seconds = on_rows(similarity_passes(actors), batch, given.similarity_rounds)
    ratios = {
        name: Ratio.between(values, seconds[f"off, {name.split(', ')[1]}"])
        for name, values in seconds.items()
        if not name.startswith("off,")
    }
    table = [[*name.split(", "), f"{r.median:.3f}", f"{r.low:.3f} to {r.high:.3f}"] for name, r in ratios.items()]
    title = f"Similarity on over off, one row of {image} image, {given.text} text and {response} response tokens"
    print_table(["similarity", "logits", "ratio", "quartiles"], table, f"{title}, {given.similarity_rounds} rounds")
    return ratios if (image, given.text, response) == LIMITS_AT else {}


def limits(ablated: dict[str, Ratio], similarity: dict[str, Ratio]) -> list[Limit]:
    bounds = {"drop_vision, all": 0.30, "drop_vision, response": 0.30, "random_patch, response": 0.85}
    found = [Limit(f"{name} logits", ablated[name].median, bound) for name, bound in bounds.items() if name in ablated]
    on = [name for name in similarity if not name.startswith("off")]
    return found + [Limit(f"{name} logits: similarity", similarity[name].median, 1.03) for name in on]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=int, nargs="+", help="image tokens, 0 for none; default: a sweep")
    parser.add_argument("--response", type=int, nargs="+", help="response tokens; default: a sweep")
    parser.add_argument("--text", type=int, default=128, help="text tokens of the prompt")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of ablation")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--similarity-rounds", type=int, default=30)
    parser.add_argument("--part", choices=("all", "ablated", "similarity"), default="all")
    parser.add_argument("--quick", action="store_true", help="three sizes, fewer rounds")
    add_model_options(parser)
    given = parser.parse_args()
    given.points = QUICK if given.quick else SWEEP
    if given.image or given.response:
        given.points = list(itertools.product(given.image or [LIMITS_AT[0]], given.response or [LIMITS_AT[2]]))
    if given.quick:
        given.rounds, given.similarity_rounds = min(given.rounds, 3), min(given.similarity_rounds, 12)
    return given


def main() -> int:
    given = parse()
    config = model_config(given.model, given.layers)
    with tempfile.TemporaryDirectory() as folder, workers.process_group():
        actors = Actors(write_model(Path(folder), config), given.overrides, given.micro_batch)
        rows = Rows(config)
        ablated = ablation_tables(given, actors, rows) if given.part != "similarity" else {}
        similarity = similarity_table(given, actors, rows) if given.part != "ablated" else {}
    return exit_status(limits(ablated, similarity) if given.model == "small" else [])


if __name__ == "__main__":
    sys.exit(main())
