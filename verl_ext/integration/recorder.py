# SPDX-License-Identifier: Apache-2.0
"""Gathers the per-token records of a training step on the driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transfer_queue as tq
from torch import Tensor

from verl_ext.ablation.layout import PatchFormat
from verl_ext.integration.ablated_batch import row_inputs
from verl_ext.integration.batch import RolloutBatch
from verl_ext.integration.record_choice import choose, prompt_id
from verl_ext.integration.records import TokenRecord, first_prompts, write_records
from verl_ext.integration.thumbnails import thumbnails
from verl_ext.methods.base import RolloutSignals
from verl_ext.signals.divergence import sampled_k3
from verl_ext.signals.request import AblatedLogProb

FIELDS = ("uid", "prompts", "responses", "rm_scores", "data_source", "index", "reward_model", "extra_fields")


@dataclass(frozen=True)
class Credit:
    """What each token of a batch is trained with.

    Attributes:
        signals: what was measured.
        weights: (B, T) multipliers of the advantages; None if no method has any.
        advantages: (B, T) after weighting.
    """

    signals: RolloutSignals
    weights: Tensor | None
    advantages: Tensor


class TokenRecorder:
    """Records some responses every so many steps, and those to the prompts of the first record whenever they recur.

    Args:
        folder: of the run; a resumed run goes on with the prompts of its first record.
        every: steps between two records.
        rows: responses in each.
        tokenizer: turns ids into text.
        patch_format: how the processor writes patch rows; None if the model has none, hence no pictures.
    """

    def __init__(self, folder: Path, every: int, rows: int, tokenizer: Any, patch_format: PatchFormat | None) -> None:
        self.folder, self.every, self.rows = folder, every, rows
        self.tokenizer, self.patch_format = tokenizer, patch_format
        self.watched = first_prompts(folder)

    def record(self, batch: RolloutBatch, credit: Credit, step: int) -> None:
        """Write what is due at this step, if anything."""
        due = step % self.every == 0
        if not due and not self.watched:
            return
        fields = tq.kv_batch_get(keys=batch.real_keys, partition_id=batch.meta.partition_id, select_fields=list(FIELDS))
        names = self._prompt_ids(fields)
        rewards = [row.sum().item() for row in fields["rm_scores"].unbind()]
        chosen = choose(names, rewards, self.watched, self.rows if due else 0)
        if not chosen:
            return
        pictures = self._pictures(batch, chosen)
        records = [
            self._one(fields, credit, row, step, names[row], images)
            for row, images in zip(chosen, pictures, strict=True)
        ]
        write_records(records, self.folder, step)
        self.watched = self.watched or frozenset(record.prompt_id for record in records)

    def _prompt_ids(self, fields: Any) -> list[str]:
        tokens = fields["prompts"].unbind()
        sources, indexes = (_column(fields, name, len(tokens)) for name in ("data_source", "index"))
        return [prompt_id(ids.tolist(), str(s), i) for ids, s, i in zip(tokens, sources, indexes, strict=True)]

    def _pictures(self, batch: RolloutBatch, chosen: Sequence[int]) -> list[list[bytes]]:
        if self.patch_format is None:
            return [[] for _ in chosen]
        keys = [batch.real_keys[row] for row in chosen]
        fields = tq.kv_batch_get(keys=keys, partition_id=batch.meta.partition_id, select_fields=["multi_modal_inputs"])
        return [thumbnails(inputs, self.patch_format) for inputs in row_inputs(fields)]

    def _one(self, fields: Any, credit: Credit, row: int, step: int, name: str, images: list[bytes]) -> TokenRecord:
        response = fields["responses"].unbind()[row]
        count, rows = response.shape[0], len(fields["uid"])
        dependency = _dependency(credit.signals)
        measured = credit.signals.measured.items()
        extra, reward_model = (_column(fields, key, rows)[row] or {} for key in ("extra_fields", "reward_model"))
        truth = reward_model.get("ground_truth")
        accuracy = (extra.get("reward_extra_info") or {}).get("acc")
        return TokenRecord(
            step=step,
            uid=str(fields["uid"][row]),
            prompt=self.tokenizer.decode(fields["prompts"].unbind()[row], skip_special_tokens=True),
            tokens=[self.tokenizer.decode([token]) for token in response.tolist()],
            visual_dependency=[] if dependency is None else dependency[row, :count].tolist(),
            signals=[(signal.field, values[row, :count].tolist()) for signal, values in measured],
            weight=[] if credit.weights is None else credit.weights[row, :count].tolist(),
            reward=float(fields["rm_scores"].unbind()[row].sum()),
            prompt_id=name,
            advantage=credit.advantages[row, :count].tolist(),
            accuracy=None if accuracy is None else float(accuracy),
            ground_truth=None if truth is None else str(truth),
            images=images,
        )


def _column(fields: Any, name: str, rows: int) -> list[Any]:
    """A non-tensor field row by row; None in each where the batch has no such field."""
    if name not in fields:
        return [None] * rows
    return [getattr(value, "data", value) for value in fields[name]]


def _dependency(signals: RolloutSignals) -> Tensor | None:
    ablated = signals.measured.get(AblatedLogProb())
    return None if ablated is None else sampled_k3(signals.old_log_prob, ablated)
