# SPDX-License-Identifier: Apache-2.0
"""FLOPs of whole steps at the sizes of Qwen2.5-VL-3B, 7B and 32B: PGPO over vanilla verl's GRPO, on any machine.

Both run through verl's own actor worker and engine, hooks included, with parameters and states that have a shape and no
content (`shapes_only.py`), no FSDP around the model and no optimizer. Vanilla verl's step is its old-log-prob pass and
update, PGPO's those and the blind pass; updates with gradient checkpointing, as verl has it, so their forward counts
twice. FLOPs are those of matrix products, convolutions and attention (`counted_attention.py`). Exit status 1 if a limit
is broken; they belong to the 7B at 1024 image, 128 text and 512 response tokens.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["VERL_PLATFORM"] = "cpu"

import torch
from actors import Actors, Pass, Rows, model_config, shared_prompts, write_processor
from common import Limit, exit_status, print_table
from counted_attention import IN_WINDOWS, counted
from shapes_only import ShapesOnly
from support import workers
from transformers import AutoModelForImageTextToText
from verl.models.transformers.monkey_patch import apply_monkey_patch
from verl.utils import torch_functional
from verl.workers.engine_workers import TrainingWorker

VANILLA = "vanilla verl"
SHARED, UNSHARED = "PGPO, shared", "PGPO, unshared"
CHOICES = {
    VANILLA: ("algorithm.adv_estimator=grpo",),
    UNSHARED: ("+perception=pgpo", shared_prompts(False)),
    SHARED: ("+perception=pgpo", shared_prompts(True)),
}
OLD, BLIND, UPDATE, STEP = "old log-prob", "blind", "update", "step"
SIZES = ("3b", "7b", "32b")
LIMITED_MODEL, LIMITED_TOKENS = "7b", (1024, 128, 512)
LIMITS = {5: 0.50, 8: 0.42}
OVERRIDES = (
    "actor_rollout_ref.model.use_remove_padding=True",
    "actor_rollout_ref.model.enable_gradient_checkpointing=True",
)
TERA = 1e12

Flops = dict[str, float]
"""TFLOP of each pass, and of the step."""


class WithoutWeights(TrainingWorker):
    """verl's, around a model of shapes, which is not sharded and that no optimizer changes."""

    def reset(self) -> None:
        engine: Any = self.engine
        with ShapesOnly():
            engine.module = AutoModelForImageTextToText.from_config(
                engine.model_config.hf_config, dtype=torch.float32, attn_implementation="sdpa"
            )
        # Layer by layer and window by window torch's would take minutes.
        engine.module.config.vision_config._attn_implementation = IN_WINDOWS
        apply_monkey_patch(engine.module, use_remove_padding=engine.use_remove_padding)
        if engine.model_config.enable_gradient_checkpointing:
            engine.module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        engine._autocast_dtype = torch.float32
        engine.optimizer = engine.lr_scheduler = None
        engine.optimizer_zero_grad = engine.module.zero_grad
        engine.optimizer_step = engine.lr_scheduler_step = lambda: 0.0


def passes_of(actors: Actors, name: str) -> dict[str, Pass]:
    worker = actors.build(name, *CHOICES[name])
    blind = {} if name == VANILLA else {BLIND: actors.ablated(worker)}
    return {OLD: actors.clean(worker), **blind, UPDATE: actors.update(worker)}


def tera_flops(call: Pass, rows: list[Any]) -> float:
    """TFLOP of a pass over `rows`."""
    # verl's loop over tokens, for want of flash-attention's function, would take minutes and no FLOPs.
    at_once = patch.object(torch_functional, "logprobs_from_logits_v2", torch_functional.logprobs_from_logits_naive)
    with at_once, ShapesOnly(), counted() as counter:
        call(rows)
    return counter.get_total_flops() / TERA


def step_flops(passes: dict[str, Pass], rows: list[Any], few: list[Any]) -> Flops:
    """Of each pass over `rows`; before it runs over `few`."""
    # What is done once a run, the comparison of shared and plain passes for one, is no part of a step.
    tera_flops(passes[OLD], few)
    found = {name: tera_flops(call, rows) for name, call in passes.items()}
    return {**found, STEP: sum(found.values())}


def measure(given: argparse.Namespace, model: str, responses: int) -> dict[str, Flops]:
    """Of vanilla verl and of PGPO, for one group of `responses` rows."""
    config = model_config(model, given.layers)
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    make = Rows(config)
    rows = make.groups(1, responses, image=given.image, text=given.text, response=given.response)
    few = make.groups(1, responses, image=4, text=4, response=2)
    with tempfile.TemporaryDirectory() as name:
        config.save_pretrained(name)
        folder = write_processor(Path(name))
        actors = Actors(folder, OVERRIDES, responses, training_worker=lambda: WithoutWeights)
        return {name: step_flops(passes_of(actors, name), rows, few) for name in CHOICES}


def lines(measured: dict[tuple[str, int], dict[str, Flops]]) -> Iterator[list[object]]:
    """Of the table."""
    for (model, responses), steps in measured.items():
        for name, step in steps.items():
            cells = [f"{step[part]:.4g}" if part in step else "-" for part in (OLD, BLIND, UPDATE, STEP)]
            yield [model, responses, name, *cells, f"{step[STEP] / steps[VANILLA][STEP]:.3f}"]


def limits(given: argparse.Namespace, measured: dict[tuple[str, int], dict[str, Flops]]) -> list[Limit]:
    if given.layers or (given.image, given.text, given.response) != LIMITED_TOKENS:
        return []
    return [
        Limit(f"{model}, {responses} responses: PGPO's step", steps[SHARED][STEP] / steps[VANILLA][STEP], bound)
        for (model, responses), steps in measured.items()
        if model == LIMITED_MODEL and (bound := LIMITS.get(responses))
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--responses", type=int, nargs="+", default=list(LIMITS), help="responses to the prompt")
    parser.add_argument("--image", type=int, default=1024, help="image tokens")
    parser.add_argument("--text", type=int, default=128, help="text tokens of the prompt")
    parser.add_argument("--response", type=int, default=512, help="response tokens")
    parser.add_argument("--layers", type=int, help="layers of the text model and vision tower, to try it out")
    return parser.parse_args()


def main() -> int:
    given = parse()
    measured: dict[tuple[str, int], dict[str, Flops]] = {}
    with workers.process_group():
        for model in given.models:
            for responses in given.responses:
                measured[model, responses] = measure(given, model, responses)
                print(f"{model}, {responses} responses: done", file=sys.stderr)
    title = f"TFLOP of a group, {given.image} image, {given.text} text and {given.response} response tokens a row"
    header = ["model", "responses", "", OLD, BLIND, UPDATE, STEP, "step over vanilla verl"]
    print_table(header, lines(measured), title)
    return exit_status(limits(given, measured))


if __name__ == "__main__":
    sys.exit(main())
