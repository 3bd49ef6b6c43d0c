# SPDX-License-Identifier: Apache-2.0
"""Steps with a frozen vision tower, whose features are computed once or in every pass, over steps that train it.

A step is what a worker does for one batch: old-log-prob pass, pass over the ablated view, update; the tower's features
are let go of between steps. Everything runs in one process, on verl's own actor worker.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from actors import Actors, Pass, Rows, add_model_options, model_config, shared_prompts, write_model
from common import Ratio, print_table, rounds
from support import workers

FROZEN = "actor_rollout_ref.actor.freeze_vision_tower=True"
TRAINED, COMPUTED, REUSED = "trained", "frozen, in every pass", "frozen, reused"
TOWERS = {TRAINED: [], COMPUTED: [FROZEN, "perception.tower_cache_gb=0"], REUSED: [FROZEN]}
SHARING = {"a prompt a response": False, "a prompt a group": True}


def step(passes: list[Pass], rows: list[Any]) -> None:
    """All passes in their order."""
    for each in passes:
        each(rows)


def steps(given: argparse.Namespace, actors: Actors, rows: list[Any]) -> dict[tuple[str, str], Callable[[], None]]:
    """A step of each kind."""
    found = {}
    for name, shared in SHARING.items():
        for tower, overrides in TOWERS.items():
            worker = actors.build(f"{name} {tower}", f"+perception={given.method}", shared_prompts(shared), *overrides)
            passes = [actors.clean(worker), actors.ablated(worker), actors.update(worker)]
            found[name, tower] = partial(step, passes, rows)
    return found


def report(given: argparse.Namespace, measured: dict[tuple[str, str], list[float]]) -> None:
    """Print each kind of step over that which trains the tower."""
    table = []
    for name in SHARING:
        base = measured[name, TRAINED]
        ratios = [Ratio.between(measured[name, tower], base) for tower in (COMPUTED, REUSED)]
        table.append([name, f"{sorted(base)[len(base) // 2]:.2f}", *ratios])
    sizes = f"{given.responses} responses, {given.image} image + {given.text} text + {given.response} response tokens"
    title = f"{given.method} on the {given.model} model, {sizes}: over a trained tower, median (quartiles)"
    print_table(["", f"{TRAINED}, s", COMPUTED, REUSED], table, title)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="pgpo")
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--responses", type=int, default=5, help="responses to each prompt")
    parser.add_argument("--image", type=int, default=1024, help="image tokens")
    parser.add_argument("--text", type=int, default=128, help="text tokens of the prompt")
    parser.add_argument("--response", type=int, default=512, help="response tokens")
    parser.add_argument("--rounds", type=int, default=5)
    add_model_options(parser)
    parser.set_defaults(micro_batch=None)
    given = parser.parse_args()
    given.overrides.append("actor_rollout_ref.model.use_remove_padding=True")
    config = model_config(given.model, given.layers)
    with tempfile.TemporaryDirectory() as folder, workers.process_group():
        actors = Actors(write_model(Path(folder), config), given.overrides, given.micro_batch or given.responses)
        sizes = {"image": given.image, "text": given.text, "response": given.response}
        rows = Rows(config).groups(given.prompts, given.responses, **sizes)
        report(given, rounds(steps(given, actors, rows), given.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
