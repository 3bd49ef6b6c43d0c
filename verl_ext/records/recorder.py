# SPDX-License-Identifier: Apache-2.0
"""Gathers the per-token records of a training step on the driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import transfer_queue as tq
from torch import Tensor

from verl_ext.ablation.layout import PatchFormat
from verl_ext.logs import get_logger
from verl_ext.methods.base import RolloutSignals
from verl_ext.passes.row_inputs import Inputs, row_inputs
from verl_ext.passes.row_pictures import with_pixels
from verl_ext.records.choice import choose, prompt_id
from verl_ext.records.thumbnails import thumbnails
from verl_ext.records.token_records import TokenRecord, first_prompts, write_records
from verl_ext.signals.divergence import sampled_k3
from verl_ext.signals.request import AblatedLogProb

logger = get_logger(__name__)
NAMING_FIELDS = ("uid", "prompts", "rm_scores", "data_source", "index")
FIELDS = ("uid", "prompts", "responses", "rm_scores", "reward_model", "extra_fields", "multi_modal_inputs")


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

    def record(self, keys: Sequence[str], partition: str, credit: Credit, step: int) -> None:
        """Write what is due at this step, if anything; a disk that is full is a warning.

        Args:
            keys: TransferQueue's keys of the (B) rows.
            partition: where they lie.
            credit: of the rows.
            step: training step.
        """
        due = step % self.every == 0
        if not due and not self.watched:
            return
        names, rewards = self._names_and_rewards(keys, partition)
        chosen = choose(names, rewards, self.watched, self.rows if due else 0)
        if not chosen:
            return
        self.watched = self.watched or frozenset(names[row] for row in chosen)
        fields = _fetch(partition, FIELDS, [keys[row] for row in chosen])
        inputs = with_pixels(row_inputs(fields), partition)
        records = [self._one(fields, inputs[at], credit, at, row, step, names[row]) for at, row in enumerate(chosen)]
        try:
            write_records(records, self.folder, step)
        except OSError as error:
            logger.warning("step %d: its token records are not written (%s); training goes on", step, error)

    def _names_and_rewards(self, keys: Sequence[str], partition: str) -> tuple[list[str], list[float]]:
        """What decides which rows are recorded, of all rows."""
        fields = _fetch(partition, NAMING_FIELDS, keys)
        tokens = fields["prompts"].unbind()
        sources, indexes = (_column(fields, name, len(tokens)) for name in ("data_source", "index"))
        names = [prompt_id(ids.tolist(), str(s), i) for ids, s, i in zip(tokens, sources, indexes, strict=True)]
        return names, [row.sum().item() for row in fields["rm_scores"].unbind()]

    def _one(self, fields: Any, inputs: Inputs, credit: Credit, at: int, row: int, step: int, name: str) -> TokenRecord:
        """The record of row `row` of the batch, which is number `at` of those in `fields`."""
        responses = fields["responses"].unbind()
        uid, extra, answer = (
            _column(fields, key, len(responses))[at] for key in ("uid", "extra_fields", "reward_model")
        )
        count = responses[at].shape[0]
        dependency = _dependency(credit.signals)
        return TokenRecord(
            step=step,
            uid=str(uid),
            prompt=self.tokenizer.decode(fields["prompts"].unbind()[at], skip_special_tokens=True),
            tokens=[self.tokenizer.decode([token]) for token in responses[at].tolist()],
            visual_dependency=[] if dependency is None else dependency[row, :count].tolist(),
            signals=[
                (signal.field, values[row, :count].tolist()) for signal, values in credit.signals.measured.items()
            ],
            weight=[] if credit.weights is None else credit.weights[row, :count].tolist(),
            reward=float(fields["rm_scores"].unbind()[at].sum()),
            prompt_id=name,
            advantage=credit.advantages[row, :count].tolist(),
            accuracy=_accuracy(extra),
            ground_truth=_ground_truth(answer),
            images=thumbnails(inputs, self.patch_format) if self.patch_format else [],
        )


def _fetch(partition: str, names: Sequence[str], keys: Sequence[str]) -> Any:
    return tq.kv_batch_get(keys=list(keys), partition_id=partition, select_fields=list(names))


def _accuracy(extra: Any) -> float | None:
    """`acc` of the reward function's result, if it gave a number."""
    found = ((extra or {}).get("reward_extra_info") or {}).get("acc")
    return float(found) if isinstance(found, Real) else None


def _ground_truth(reward_model: Any) -> str | None:
    found = (reward_model or {}).get("ground_truth")
    return None if found is None else str(found)


def _column(fields: Any, name: str, rows: int) -> list[Any]:
    """A non-tensor field row by row; None in each where the batch has no such field."""
    if name not in fields:
        return [None] * rows
    return [getattr(value, "data", value) for value in fields[name]]


def _dependency(signals: RolloutSignals) -> Tensor | None:
    ablated = signals.measured.get(AblatedLogProb())
    return None if ablated is None else sampled_k3(signals.old_log_prob, ablated)
