# SPDX-License-Identifier: Apache-2.0
"""A made-up training run as verl and the plug-in leave it behind, to test the report and to look at it.

python tests/support/synthetic_run.py FOLDER [--steps 60] [--seed 0] [--gain 1.0]
"""

import argparse
import hashlib
import json
import math
import random
import re
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

NUMBERS = pa.list_(pa.float32())
FIRST_COLUMNS = [
    ("step", pa.int64()),
    ("uid", pa.string()),
    ("prompt", pa.string()),
    ("tokens", pa.list_(pa.string())),
    ("visual_dependency", NUMBERS),
    ("signals", pa.map_(pa.string(), NUMBERS)),
    ("weight", NUMBERS),
    ("reward", pa.float64()),
]
LATER_COLUMNS = [
    ("prompt_id", pa.string()),
    ("advantage", NUMBERS),
    ("accuracy", pa.float64()),
    ("ground_truth", pa.string()),
    ("images", pa.list_(pa.binary())),
]
SCHEMA = pa.schema(FIRST_COLUMNS + LATER_COLUMNS)
OLDER_SCHEMA = pa.schema(FIRST_COLUMNS)

COLOURS = {"red": "#d94141", "blue": "#3b6fd4", "green": "#3f9b52", "yellow": "#e3b92f", "purple": "#8a56b8"}
SHAPES = ("circle", "square", "triangle")
SIDES = ("left", "right")
VISUAL_WORDS = {*COLOURS, *SHAPES, *SIDES, "two", "larger", "smaller"}


def picture(first, second):
    """Two (colour, shape, radius) side by side, as a PNG file."""
    image = Image.new("RGB", (224, 160), "#f6f3ea")
    draw = ImageDraw.Draw(image)
    for x, (colour, shape, r) in zip((62, 162), (first, second), strict=True):
        box = (x - r, 80 - r, x + r, 80 + r)
        if shape == "circle":
            draw.ellipse(box, fill=COLOURS[colour])
        elif shape == "square":
            draw.rectangle(box, fill=COLOURS[colour])
        else:
            draw.polygon([(x, 80 - r), (x - r, 80 + r), (x + r, 80 + r)], fill=COLOURS[colour])
    return png(image)


def png(image):
    file = BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


class Question:
    """A picture, what is asked about it, and answers with some reasoning."""

    def __init__(self, rng):
        self.things = [(rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.randint(26, 44)) for _ in range(2)]
        self.asked = rng.randrange(2)
        self.image = picture(*self.things)
        self.truth = self.things[self.asked][0]
        self.prompt = (
            "system\nYou are a helpful assistant. Think within <think> </think>, then answer in \\boxed{}.\nuser\n"
            f"What colour is the shape on the {SIDES[self.asked]}?\nassistant\n"
        )
        self.id = hashlib.sha256(self.image + self.prompt.encode()).hexdigest()[:16]

    def answer(self, rng, right):
        (left, right_thing), side = self.things, SIDES[self.asked]
        said = self.truth if right else rng.choice([colour for colour in COLOURS if colour != self.truth])
        larger = "left" if left[2] > right_thing[2] else "right"
        opening = rng.choice(["Let me look at the picture carefully.", "I need to find the shape that is asked about."])
        text = (
            f"<think> {opening} There are two shapes: a {left[0]} {left[1]} on the left and a {right_thing[0]} "
            f"{right_thing[1]} on the right, and the {larger} one is larger.\nThe question asks about the shape on the "
            f"{side}. That shape is {said}, so this is the answer. </think>\nThe shape on the {side} is "
            f"\\boxed{{{said}}}<|im_end|>"
        )
        return re.findall(r"</?think>|<\|im_end\|>|\\boxed|\n| ?\w+|[^\w\s]|\s", text)


def token_numbers(tokens, progress, rng):
    """Dependency, entropy and ablated log-probability of each token; words about the picture depend on it."""
    seeing = [0.2 + 1.5 * progress if token.strip() in VISUAL_WORDS else 0.02 for token in tokens]
    dependency = [scale * rng.lognormvariate(-0.3, 0.8) for scale in seeing]
    entropy = [(0.9 - 0.5 * progress) * rng.random() ** 2 for _ in tokens]
    return dependency, entropy, [-math.sqrt(2 * d) - e for d, e in zip(dependency, entropy, strict=True)]


def record(question, step, progress, rng):
    right = rng.random() < 0.35 + 0.55 * progress
    tokens = question.answer(rng, right)
    dependency, entropy, ablated = token_numbers(tokens, progress, rng)
    mean = sum(dependency) / len(dependency)
    weight = [min(3.0, 0.6 + 0.4 * d / mean) for d in dependency]
    return {
        "step": step,
        "uid": f"{question.id[:8]}-{step}",
        "prompt": question.prompt,
        "tokens": tokens,
        "visual_dependency": dependency,
        "signals": [("ablated_log_prob", ablated), ("entropy", entropy)],
        "weight": weight,
        "reward": 1.0 if right else 0.1,
        "prompt_id": question.id,
        "advantage": [(0.7 if right else -1.1) * w for w in weight],
        "accuracy": float(right),
        "ground_truth": question.truth,
        "images": [question.image],
    }


def step_metrics(step, progress, gain, rng):
    def near(value, noise):
        return value + rng.gauss(0, noise)

    gen, update = near(3.2 + 0.6 * progress, 0.15), near(1.4, 0.05)
    timing = {"gen": gen, "old_log_prob": near(0.7, 0.03), "ablated_log_prob": near(0.28, 0.02), "ref": near(0.5, 0.02)}
    timing |= {"adv": 0.1, "update_actor": update, "update_weights": 0.05}
    timing["step"] = sum(timing.values()) + 0.4
    start = 2.5 if step == 1 else 1.0
    reward = near(0.45 + 0.38 * gain * progress, 0.03)
    return {
        "training/global_step": step,
        "critic/score/mean": reward,
        "critic/score/max": 1.0,
        "critic/score/min": 0.1,
        "critic/rewards/mean": reward,
        "critic/advantages/mean": near(0, 0.01),
        "actor/entropy": near(0.9 - 0.45 * progress, 0.02),
        "actor/pg_loss": near(0.0, 0.01),
        "actor/pg_clipfrac": abs(near(0.004, 0.002)),
        "actor/ppo_kl": near(0.001, 0.0005),
        "actor/grad_norm": near(0.8 - 0.3 * progress, 0.08),
        "actor/lr": 1e-6,
        "response_length/mean": near(74 + 9 * progress, 1.5),
        "response_length/max": 96.0,
        "prompt_length/mean": 131.0,
        "perception/image_rows": 1.0,
        "perception/visual_dependency/mean": near(0.12 + 0.25 * gain * progress, 0.01),
        "perception/visual_dependency/p95": near(0.6 + 1.1 * gain * progress, 0.05),
        "perception/visual_dependency/top20_share": near(0.78 + 0.08 * progress, 0.01),
        "perception/ablated_nll": near(0.7 + 0.5 * gain * progress, 0.02),
        "perception/token_weight/max": near(2.6 + 0.4 * progress, 0.1),
        "perception/token_weight/effective_fraction": near(0.82 - 0.15 * progress, 0.01),
        "perception/pgpo/weight_mean": 1.0,
        "perception/collapse/signs": 0,
        "perception/rollout_actor_log_prob_corr": near(0.9995, 0.0001),
        "perf/throughput": near(410, 12),
        "perf/max_memory_allocated_gb": 31.4,
        **{f"timing_s/{phase}": start * seconds for phase, seconds in timing.items()},
    }


def validation_metrics(progress, gain, rng):
    return {
        "val-core/shapes/acc/mean@1": 0.42 + 0.36 * gain * progress + rng.gauss(0, 0.012),
        "val-core/shapes_blind/acc/mean@1": 0.21 + 0.02 * progress + rng.gauss(0, 0.012),
    }


def write_run(folder, *, steps=60, every=10, rows=12, seed=0, gain=1.0):
    """Write `metrics.jsonl` and, every so many steps, the records of `rows` responses. Returns `folder`."""
    rng = random.Random(seed)
    asked = [Question(random.Random(index)) for index in range(40)]
    entries = [(0, validation_metrics(0.0, gain, rng))]
    for step in range(1, steps + 1):
        progress = 1 - math.exp(-2.5 * step / steps)
        data = step_metrics(step, progress, gain, rng)
        if step % every == 0 or step == steps:
            data |= validation_metrics(progress, gain, rng)
            # Three prompts come back at every recorded step.
            questions = [*asked[:3], *rng.sample(asked[3:], max(1, rows // 2 - 3))]
            records = [record(question, step, progress, rng) for question in questions for _ in range(2)]
            write_records(folder, step, records[:rows])
        entries.append((step, data))
    write_metrics(folder / "metrics.jsonl", entries)
    return folder


def write_metrics(path, entries):
    """verl's file logger writes what is not finite as null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in entries))


def write_records(folder, step, records, schema=SCHEMA):
    path = folder / "perception_tokens" / f"step_{step:06d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records, schema=schema), path)
    return path


def plain_record(step=1, tokens=("a", " b"), **columns):
    """A record without anything remarkable."""
    count = len(tokens)
    return {
        "step": step,
        "uid": f"uid-{step}",
        "prompt": "user\nWhat is it?\nassistant\n",
        "tokens": list(tokens),
        "visual_dependency": [0.5] * count,
        "signals": [("entropy", [0.25] * count)],
        "weight": [1.0] * count,
        "reward": 1.0,
        "prompt_id": "prompt",
        "advantage": [0.5] * count,
        "accuracy": 1.0,
        "ground_truth": "it",
        "images": [],
    } | columns


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gain", type=float, default=1.0)
    options = parser.parse_args()
    write_run(options.folder, steps=options.steps, seed=options.seed, gain=options.gain)
