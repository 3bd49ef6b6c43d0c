# SPDX-License-Identifier: Apache-2.0
"""Passes and steps in which responses share their prompt, and in which they do not, over vanilla verl's GRPO.

Everything in one process, on one batch: rows of a group lie side by side, as the trainer lays them, and a micro-batch
is a group. Each pass runs through verl's own actor and reference workers. A step is the sum of its passes within a
round: old-log-prob pass, reference pass if the method's configuration has one (vanilla verl then has it too), pass over
the ablated view if the method needs one, and update. Exit status 1 if a limit is broken; they belong to 1024 image, 128
text and 512 response tokens, and 5 or 8 responses.

With --never-slower instead: where there is little to share, steps with `share_prompts=null` over such with `False`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from actors import Actors, Pass, Rows, add_model_options, model_config, shared_prompts, write_model
from common import Limit, Ratio, exit_status, print_table, rounds
from support import workers

METHODS = ("pgpo", "pepo_g", "vgpo", "papo_g")
VANILLA = "vanilla verl"
SHARED, UNSHARED, CHOSEN = "shared", "unshared", "null"
SHARING = {SHARED: True, UNSHARED: False, CHOSEN: None}
OLD, REFERENCE, ABLATED, UPDATE, STEP = "old_log_prob", "ref_log_prob", "ablated_log_prob", "update_actor", "step"
PASSES = (OLD, REFERENCE, ABLATED, UPDATE)
LIMITS = {5: {OLD: 0.42, UPDATE: 0.35, STEP: 0.45}, 8: {STEP: 0.36}}
MOST_OF_UNSHARED = 1.03

Variant = tuple[str, str]
"""A method, or vanilla verl, and whether prompts are shared."""
Passes = dict[str, Pass]
"""What a step consists of, by name."""
Seconds = dict[str, list[float]]
"""Of each pass, and of the step, round by round."""


@dataclass(frozen=True)
class Sizes:
    """A batch: prompts, responses to each, and the tokens of a row."""

    prompts: int
    responses: int
    image: int
    text: int
    response: int

    @property
    def limits(self) -> dict[str, float]:
        """By pass, the most that it may take of vanilla verl's."""
        limited = (self.image, self.text, self.response) == (1024, 128, 512)
        return LIMITS.get(self.responses, {}) if limited else {}

    def rows(self, make: Rows) -> list[Any]:
        tokens = {"image": self.image, "text": self.text, "response": self.response}
        return make.groups(self.prompts, self.responses, **tokens)

    def __str__(self) -> str:
        tokens = f"{self.image} image, {self.text} text and {self.response} response tokens"
        return f"{self.prompts} x {self.responses} rows of {tokens}"


def vanilla_passes(actors: Actors, with_reference: bool) -> Passes:
    chosen = "algorithm.adv_estimator=grpo"
    worker = actors.build("vanilla", chosen)
    passes = {OLD: actors.clean(worker), UPDATE: actors.update(worker)}
    if with_reference:
        passes[REFERENCE] = actors.reference(actors.build("vanilla reference", chosen, role="ref"))
    return passes


def method_passes(actors: Actors, method: str, sharing: str) -> Passes:
    chosen = (f"+perception={method}", shared_prompts(SHARING[sharing]))
    worker = actors.build("ours", *chosen)
    passes = {OLD: actors.clean(worker), UPDATE: actors.update(worker)}
    if worker.plan.separate:
        passes[ABLATED] = actors.ablated(worker)
    if worker.config.actor.use_kl_loss:
        passes[REFERENCE] = actors.reference(actors.build("our reference", *chosen, role="ref"))
    return passes


def measure(variants: dict[Variant, Passes], rows: list[Any], given: argparse.Namespace) -> dict[Variant, Seconds]:
    """Every pass of every variant once a round."""
    clock = time.process_time if given.cpu_time else time.perf_counter
    calls = {(key, name): partial(call, rows) for key, passes in variants.items() for name, call in passes.items()}
    measured: dict[Variant, Seconds] = {key: {} for key in variants}
    for (key, name), seconds in rounds(calls, given.rounds, clock).items():
        measured[key][name] = seconds
    for seconds in measured.values():
        seconds[STEP] = together(seconds, *(name for name in PASSES if name in seconds))
    return measured


def together(seconds: Seconds, *passes: str) -> list[float]:
    """What `passes` take, round by round."""
    return [sum(values) for values in zip(*(seconds[name] for name in passes), strict=True)]


def base_of(name: str, own: Seconds, vanilla: Seconds) -> list[float]:
    """What vanilla verl takes for a pass; its old-log-prob pass stands for the ablated one, which it does not have."""
    if name == STEP:
        return together(vanilla, *(part for part in PASSES if part in own and part != ABLATED))
    return vanilla[OLD if name == ABLATED else name]


def compare(given: argparse.Namespace, actors: Actors, make: Rows) -> list[Limit]:
    """Print the table over vanilla verl; the limits at its sizes."""
    sizes, variants = given.sizes, {}
    for method in given.methods:
        for sharing in (SHARED,) if given.only_shared else (UNSHARED, SHARED):
            variants[method, sharing] = method_passes(actors, method, sharing)
    vanilla = (VANILLA, "")
    variants[vanilla] = vanilla_passes(actors, with_reference=any(REFERENCE in own for own in variants.values()))
    measured = measure(variants, sizes.rows(make), given)
    write_json(given.json, [(sizes, measured)])
    table, limits = [], []
    for method in given.methods:
        shared, unshared = measured[method, SHARED], measured.get((method, UNSHARED), {})
        for name in filter(shared.get, (*PASSES, STEP)):
            base = base_of(name, shared, measured[vanilla])
            ratio = Ratio.between(shared[name], base)
            cells = [method, name, f"{statistics.median(base):.2f}", ratio]
            if unshared:
                cells += [Ratio.between(unshared[name], base), Ratio.between(shared[name], unshared[name])]
            table.append(cells)
            if name in sizes.limits:
                limits.append(Limit(f"{method}: {name}", ratio.median, sizes.limits[name]))
    header = ["method", "pass", "vanilla verl, s", "shared"]
    header += [] if given.only_shared else ["unshared", "shared over unshared"]
    print_table(header, table, f"Over vanilla verl, {sizes}: median (quartiles) of {given.rounds} rounds")
    return limits


def never_slower(given: argparse.Namespace, actors: Actors, make: Rows) -> list[Limit]:
    """Print steps with `null` over such with `False` where sharing can hardly pay."""
    kinds = (UNSHARED, CHOSEN)
    variants = {(method, kind): method_passes(actors, method, kind) for method in given.methods for kind in kinds}
    cases = [replace(given.sizes, **change) for change in ({"responses": 1}, {"image": 16}, {"response": 2048})]
    table, limits, everything = [], [], []
    for sizes in cases:
        measured = measure(variants, sizes.rows(make), given)
        everything.append((sizes, measured))
        for method in given.methods:
            unshared, chosen = measured[method, UNSHARED][STEP], measured[method, CHOSEN][STEP]
            ratio = Ratio.between(chosen, unshared)
            cells = [sizes.responses, sizes.image, sizes.response, method, f"{statistics.median(unshared):.2f}"]
            quartiles = f"{ratio.low:.3f} to {ratio.high:.3f}"
            table.append([*cells, f"{ratio.median:.3f}", quartiles])
            limits.append(Limit(f"{method}: {sizes}", ratio.median, MOST_OF_UNSHARED))
    write_json(given.json, everything)
    header = ["responses", "image", "response", "method", "unshared step, s", "null over unshared", "quartiles"]
    print_table(header, table, f"Steps with share_prompts=null over False, {given.rounds} rounds")
    return limits


def write_json(path: Path | None, measured: list[tuple[Sizes, dict[Variant, Seconds]]]) -> None:
    """Every second that was measured, if there is a `path` to write to."""
    if path is None:
        return
    rows = [
        {**asdict(sizes), "method": method, "sharing": sharing, "pass": name, "seconds": seconds}
        for sizes, variants in measured
        for (method, sharing), passes in variants.items()
        for name, seconds in passes.items()
    ]
    path.write_text(json.dumps(rows, indent=1))


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--responses", type=int, default=5, help="responses to each prompt")
    parser.add_argument("--image", type=int, default=1024, help="image tokens")
    parser.add_argument("--text", type=int, default=128, help="text tokens of the prompt")
    parser.add_argument("--response", type=int, default=512, help="response tokens")
    parser.add_argument("--only-shared", action="store_true", help="leave out the methods without sharing")
    parser.add_argument("--padded", action="store_true", help="sequences padded, not packed")
    parser.add_argument("--never-slower", action="store_true", help="share_prompts=null where there is little to share")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="of this process, on a machine that has other work")
    parser.add_argument("--json", type=Path, help="where to write every second that was measured")
    add_model_options(parser)
    parser.set_defaults(micro_batch=None)
    given = parser.parse_args(words)
    given.sizes = Sizes(given.prompts, given.responses, given.image, given.text, given.response)
    given.overrides.append(f"actor_rollout_ref.model.use_remove_padding={not given.padded}")
    return given


def main() -> int:
    given = parse()
    config = model_config(given.model, given.layers)
    with tempfile.TemporaryDirectory() as folder, workers.process_group():
        actors = Actors(write_model(Path(folder), config), given.overrides, given.micro_batch or given.responses)
        limits = (never_slower if given.never_slower else compare)(given, actors, Rows(config))
    return exit_status(limits if given.model == "small" else [])


if __name__ == "__main__":
    sys.exit(main())
