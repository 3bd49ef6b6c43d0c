# SPDX-License-Identifier: Apache-2.0
"""Per-token records of a few responses as parquet: what was said and seen, what it depended on, what it weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ext.report.record_files import FOLDER

_NUMBERS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    {
        "step": pa.int64(),
        "uid": pa.string(),
        "prompt": pa.string(),
        "tokens": pa.list_(pa.string()),
        "visual_dependency": _NUMBERS,
        "signals": pa.map_(pa.string(), _NUMBERS),
        "weight": _NUMBERS,
        "reward": pa.float64(),
        "prompt_id": pa.string(),
        "advantage": _NUMBERS,
        "accuracy": pa.float64(),
        "ground_truth": pa.string(),
        "images": pa.list_(pa.binary()),
    }
)


@dataclass(frozen=True)
class TokenRecord:
    """One response. The lists of numbers have one entry a response token.

    Attributes:
        step: training step.
        uid: verl's identifier of the prompt, drawn anew each time that it is sampled.
        prompt: the prompt as text, image placeholders collapsed.
        tokens: response tokens as text.
        visual_dependency: sampled k3 divergence (nats) of the clean from the main ablated view; empty if not measured.
        signals: every measured signal, by name.
        weight: multiplier of the advantage; empty if no method weights advantages.
        reward: score of the response.
        prompt_id: the same whenever the same row of the data is sampled.
        advantage: what the token is trained with.
        accuracy: `acc` of the reward function's result; None if it gives none.
        ground_truth: the row's answer; None if it has none.
        images: PNG files of the prompt's images as the model saw them, made small.
    """

    step: int
    uid: str
    prompt: str
    tokens: list[str]
    visual_dependency: list[float]
    signals: list[tuple[str, list[float]]]
    weight: list[float]
    reward: float
    prompt_id: str
    advantage: list[float]
    accuracy: float | None
    ground_truth: str | None
    images: list[bytes]


def write_records(records: Sequence[TokenRecord], run_dir: Path, step: int) -> Path:
    """Write one parquet file for the step, whole or not at all.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:06d}.parquet"
    partial = path.with_suffix(".partial")
    try:
        pq.write_table(pa.Table.from_pylist([asdict(record) for record in records], schema=SCHEMA), partial)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    return path


def first_prompts(run_dir: Path) -> frozenset[str]:
    """`prompt_id` of every prompt in the earliest file of a run; empty if there is none."""
    files = sorted((run_dir / FOLDER).glob("step_*.parquet"))
    return frozenset(pq.read_table(files[0], columns=["prompt_id"])["prompt_id"].to_pylist() if files else [])
