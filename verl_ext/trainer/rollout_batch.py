# SPDX-License-Identifier: Apache-2.0
"""The small per-token fields of a rollout batch, fetched from TransferQueue, padded, and without padding rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.workers.utils.padding import response_to_nested

from verl_ext.methods.base import RolloutSignals
from verl_ext.methods.groups import group_index
from verl_ext.signals.request import Signal
from verl_ext.vocabulary import HAS_IMAGE


@dataclass(frozen=True)
class RolloutBatch:
    """A batch as the driver sees it.

    Attributes:
        meta: verl's handle of the batch.
        fields: jagged fields as they lie in TransferQueue, all rows.
        real: (B,) bool, false for the rows that verl added to make the batch divisible.
    """

    meta: KVBatchMeta
    fields: TensorDict
    real: Tensor

    @classmethod
    def fetch(cls, meta: KVBatchMeta, *names: str) -> RolloutBatch:
        """Fetch `names`, never the images."""
        fields = tq.kv_batch_get(keys=meta.keys, partition_id=meta.partition_id, select_fields=list(names))
        real = torch.tensor([not tag.get("is_padding", False) for tag in meta.tags], dtype=torch.bool)
        return cls(meta, fields, real)

    @property
    def real_keys(self) -> list[str]:
        """TransferQueue's keys of the real rows."""
        return [key for key, real in zip(self.meta.keys, self.real.tolist(), strict=True) if real]

    def real_values(self, name: str) -> list[Any]:
        """The non-tensor field `name` of the real rows; none where the batch has no such field."""
        rows = zip(self.fields[name], self.real.tolist(), strict=True) if name in self.fields else ()
        return [getattr(value, "data", value) for value, real in rows if real]

    def padded(self, name: str) -> Tensor:
        """(B', T) values of the real rows, zero behind each response."""
        return self.fields[name].to_padded_tensor(0)[self.real]

    def signals(self, wanted: Iterable[Signal], mask: Tensor, progress: float) -> RolloutSignals:
        """The signals of the real rows.

        Args:
            wanted: what was measured; needs the fields of each, and `has_image` if there are any. `uid` and
                `old_log_probs` are always needed.
            mask: (B', T) bool, true where a token of the real rows counts.
            progress: share of the training steps that are done.
        """
        return RolloutSignals(
            response_mask=mask,
            has_image=self.fields[HAS_IMAGE][self.real] if HAS_IMAGE in self.fields else mask.new_zeros(mask.shape[0]),
            group_ids=group_index(self.real_values("uid"), mask),
            old_log_prob=self.padded("old_log_probs").float(),
            measured={signal: self.padded(signal.field).float() for signal in wanted},
            progress=progress,
        )

    def write(self, name: str, values: Tensor) -> KVBatchMeta:
        """Write (B', T) `values` of the real rows back as the jagged field `name`; padding rows keep theirs.

        Returns:
            The handle that verl's next stage must use.
        """
        full = self.fields[name].to_padded_tensor(0).clone()
        full[self.real] = values.to(full.dtype)
        return self._put(name, response_to_nested(full, self.fields[name]))

    def write_rows(self, name: str, values: Tensor) -> KVBatchMeta:
        """The same for a field of one number a row; `values` is (B',)."""
        full = self.fields[name].clone()
        full[self.real] = values.to(full.dtype)
        return self._put(name, full)

    def _put(self, name: str, values: Tensor) -> KVBatchMeta:
        fields = TensorDict({name: values}, batch_size=len(self.meta))
        return tq.kv_batch_put(keys=self.meta.keys, partition_id=self.meta.partition_id, fields=fields)
