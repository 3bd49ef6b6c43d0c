# SPDX-License-Identifier: Apache-2.0
"""Per-token records of a few responses: what was said, how much each token depended on the image, what it weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import transfer_queue as tq
from torch import Tensor
from transfer_queue import KVBatchMeta

from verl_ext.methods.base import RolloutSignals
from verl_ext.signals.divergence import sampled_k3
from verl_ext.signals.request import AblatedLogProb

FOLDER = "perception_tokens"
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
    }
)


@dataclass(frozen=True)
class TokenRecord:
    """One response. The lists have one entry a response token.

    Attributes:
        step: training step.
        uid: verl's identifier of the prompt.
        prompt: the prompt as text, image placeholders collapsed.
        tokens: response tokens as text.
        visual_dependency: sampled k3 divergence (nats) of the clean from the main ablated view; empty if not measured.
        signals: every measured signal, by name.
        weight: multiplier of the advantage; empty if no method weights advantages.
        reward: score of the response.
    """

    step: int
    uid: str
    prompt: str
    tokens: list[str]
    visual_dependency: list[float]
    signals: list[tuple[str, list[float]]]
    weight: list[float]
    reward: float


def collect(
    meta: KVBatchMeta, tokenizer: Any, signals: RolloutSignals, weights: Tensor | None, *, step: int, rows: int
) -> list[TokenRecord]:
    """Records of the first `rows` responses of a batch.

    Args:
        meta: verl's handle of the batch whose real rows `signals` and `weights` describe, in order.
        tokenizer: turns ids into text.
        signals: what was measured.
        weights: (B, T) combined advantage weights, or None.
        step: training step.
        rows: how many responses to record.
    """
    keys = [key for key, tag in zip(meta.keys, meta.tags, strict=True) if not tag.get("is_padding", False)][:rows]
    fields = tq.kv_batch_get(
        keys=keys, partition_id=meta.partition_id, select_fields=["uid", "prompts", "responses", "rm_scores"]
    )
    dependency = _dependency(signals)
    records = []
    for row, response in enumerate(fields["responses"].unbind()):
        count = response.shape[0]
        records.append(
            TokenRecord(
                step=step,
                uid=str(fields["uid"][row]),
                prompt=tokenizer.decode(fields["prompts"].unbind()[row], skip_special_tokens=True),
                tokens=[tokenizer.decode([token]) for token in response.tolist()],
                visual_dependency=[] if dependency is None else dependency[row, :count].tolist(),
                signals=[(signal.field, values[row, :count].tolist()) for signal, values in signals.measured.items()],
                weight=[] if weights is None else weights[row, :count].tolist(),
                reward=float(fields["rm_scores"].unbind()[row].sum()),
            )
        )
    return records


def _dependency(signals: RolloutSignals) -> Tensor | None:
    ablated = signals.measured.get(AblatedLogProb())
    return None if ablated is None else sampled_k3(signals.old_log_prob, ablated)


def write_records(records: Sequence[TokenRecord], run_dir: Path, step: int) -> Path:
    """Write one parquet file for the step, whole or not at all."""
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:06d}.parquet"
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist([asdict(record) for record in records], schema=SCHEMA), partial)
    partial.replace(path)
    return path
