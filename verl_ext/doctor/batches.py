# SPDX-License-Identifier: Apache-2.0
"""Can batches be divided over ranks, mini-batches and micro-batches as verl's workers will demand?

verl checks part of it before Ray starts (`validate_config`), and the rest in the workers, after minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from verl_ext.configuration.validation import MEGATRON, SEQUENCE_PARALLEL_KEYS, STRATEGY
from verl_ext.doctor.checks import Check, failure, ok, warning
from verl_ext.doctor.subject import Subject

ACTOR = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
REF = "actor_rollout_ref.ref"
MINI_BATCH = f"{ACTOR}.ppo_mini_batch_size"
UPDATE = f"{ACTOR}.ppo_micro_batch_size_per_gpu"
LOG_PROB = f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu"
REF_LOG_PROB = f"{REF}.log_prob_micro_batch_size_per_gpu"


@dataclass(frozen=True)
class Batches:
    """Rows are responses.

    Attributes:
        rows: that one update cycle samples.
        mini_batch: rows of one optimiser step.
        ranks: over which rows are spread.
    """

    rows: int
    mini_batch: int
    ranks: int

    @property
    def padded(self) -> int:
        """`rows` with those that verl adds so that mini-batches and ranks divide them."""
        multiple = math.lcm(self.mini_batch, self.ranks)
        return -(-self.rows // multiple) * multiple


def batch_checks(subject: Subject) -> Iterator[Check]:
    """Everything that does not divide, or one line with the sizes."""
    problems = [*_cut_problem(subject), *_mode_problem(subject)]
    if not problems:
        batches = batches_of(subject)
        problems = [*mini_batch_problem(batches), *_micro_batch_problems(subject, batches), *padding(batches)]
        yield from problems or [ok("batches", _summary(subject, batches))]
    else:
        yield from problems


def batches_of(subject: Subject) -> Batches:
    """The sizes of a run."""
    group = int(subject.get(f"{ROLLOUT}.n"))
    prompts = int(subject.get("data.train_batch_size")) // _syncs(subject)
    ranks = world_size(subject) // cut(subject)
    return Batches(prompts * group, int(subject.get(MINI_BATCH)) * group, ranks)


def world_size(subject: Subject) -> int:
    """Number of the trainer's devices."""
    return int(subject.get("trainer.nnodes")) * int(subject.get("trainer.n_gpus_per_node"))


def cut(subject: Subject) -> int:
    """Number of devices that share one row."""
    if subject.get(STRATEGY) != "megatron":
        return max(int(subject.get(key, 1)) for key in SEQUENCE_PARALLEL_KEYS)
    sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
    return math.prod(int(subject.get(f"{MEGATRON}.{size}", 1)) for size in sizes)


def mini_batch_problem(batches: Batches) -> Iterator[Check]:
    """A mini-batch must be the same number of rows on each rank."""
    if batches.mini_batch % batches.ranks:
        found = f"{MINI_BATCH} x rollout.n = {batches.mini_batch} rows do not divide by {batches.ranks} ranks"
        yield failure("mini-batch", found, f"make {MINI_BATCH} a multiple of the ranks")


def micro_batch_problem(key: str, size: int | None, rows: int) -> Iterator[Check]:
    """A rank's rows must be a number of whole micro-batches.

    Args:
        key: the configuration key of the size.
        size: rows of a micro-batch; None if not set.
        rows: the rank's.
    """
    if size is None:
        yield failure("micro-batch", f"{key} is not set", "set it, or use dynamic batches (use_dynamic_bsz)")
    elif rows % size:
        yield failure(
            "micro-batch", f"{key}={size} does not divide the {rows} rows of a rank", f"write a divisor of {rows}"
        )


def padding(batches: Batches) -> Iterator[Check]:
    """Rows that verl adds at every step."""
    added = batches.padded - batches.rows
    if added:
        yield warning(
            "batches",
            f"{batches.rows} rows do not divide by mini-batches of {batches.mini_batch} on {batches.ranks} rank(s): "
            f"verl adds {added} empty rows at every step",
            f"make data.train_batch_size a multiple of {MINI_BATCH}",
        )


def _syncs(subject: Subject) -> int:
    """Updates between two weight syncs, in which a training batch is used up."""
    mode = str(subject.get("trainer.v1.trainer_mode")).removeprefix("perception_")
    return int(subject.get(f"trainer.v1.{mode}.parameter_sync_step", 1))


def _cut_problem(subject: Subject) -> Iterator[Check]:
    if world_size(subject) % cut(subject):
        found = f"{world_size(subject)} devices do not divide by the {cut(subject)} that share a row"
        yield failure("batches", found, "change trainer.n_gpus_per_node or the parallel sizes")


def _mode_problem(subject: Subject) -> Iterator[Check]:
    update, log_prob = subject.get(f"{ACTOR}.use_dynamic_bsz"), subject.get(f"{ROLLOUT}.log_prob_use_dynamic_bsz")
    if update != log_prob:
        found = f"{ACTOR}.use_dynamic_bsz={update}, but {ROLLOUT}.log_prob_use_dynamic_bsz={log_prob}"
        yield failure("batches", found, "verl wants the same for both")


def _micro_batch_problems(subject: Subject, batches: Batches) -> Iterator[Check]:
    from verl.trainer.ppo.utils import need_reference_policy

    if batches.mini_batch % batches.ranks:
        return
    rows = batches.padded // batches.ranks
    if not subject.get(f"{ACTOR}.use_dynamic_bsz"):
        yield from micro_batch_problem(UPDATE, subject.get(UPDATE), batches.mini_batch // batches.ranks)
        yield from micro_batch_problem(LOG_PROB, subject.get(LOG_PROB), rows)
    if need_reference_policy(subject.composed) and not subject.get(f"{REF}.log_prob_use_dynamic_bsz"):
        yield from micro_batch_problem(REF_LOG_PROB, subject.get(REF_LOG_PROB), rows)


def _summary(subject: Subject, batches: Batches) -> str:
    micro = "dynamic" if subject.get(f"{ACTOR}.use_dynamic_bsz") else f"{subject.get(UPDATE)} rows"
    return (
        f"{batches.rows} rows on {batches.ranks} rank(s), {batches.padded // batches.mini_batch} optimiser step(s) of "
        f"{batches.mini_batch}; micro-batches: {micro}"
    )
