# SPDX-License-Identifier: Apache-2.0
"""verl's balancing of a batch over ranks, with the responses to a prompt on one of them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.seqlen_balancing import log_seqlen_unbalance

from verl_ext.configuration.section import Perception
from verl_ext.configuration.sharing import shares_prompts
from verl_ext.trainer.group_order import by_first, rows_of, together


class GroupsTogether(PPOTrainer):
    """Put before one of verl's trainers."""

    perception: Perception

    def _balance_batch(
        self,
        batch: KVBatchMeta,
        metrics: dict[str, Any],
        logging_prefix: str = "global_seqlen",
        keep_minibatch: bool = False,
    ) -> KVBatchMeta:
        """verl's, then ours among the rows of each optimizer step.

        Rows come in the order in which they were finished. verl gets them group by group, so that its optimizer steps
        take whole prompts as far as ranks allow; `ppo_mini_batch_size` counts prompts.
        """
        if not self._orders_groups:
            return super()._balance_batch(batch, metrics, logging_prefix, keep_minibatch)
        batch.reorder(by_first(rows_of(batch.keys, batch.tags)))
        batch = super()._balance_batch(batch, metrics, logging_prefix, keep_minibatch)
        ranks = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1
        batch.reorder(together(rows_of(batch.keys, batch.tags), ranks, self._optimizer_steps(len(batch))))
        lengths, size = [tag["seq_len"] for tag in batch.tags], len(batch) // ranks
        partitions = [list(range(begin, begin + size)) for begin in range(0, len(batch), size)]
        metrics.update(log_seqlen_unbalance(lengths, partitions, logging_prefix))
        return batch

    @cached_property
    def _orders_groups(self) -> bool:
        """Not where rows are computed apart, nor where verl draws those of a step from their places in the batch."""
        shuffled = self.config.actor_rollout_ref.actor.shuffle
        return not (shuffled or self.use_critic) and shares_prompts(self.config, self.perception)

    def _optimizer_steps(self, rows: int) -> int:
        """How often an epoch of the actor cuts `rows` rows."""
        actor = self.config.actor_rollout_ref
        step = actor.actor.ppo_mini_batch_size * actor.rollout.n
        return rows // step if rows % step == 0 else 1
