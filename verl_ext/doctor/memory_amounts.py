# SPDX-License-Identifier: Apache-2.0
"""How many bytes each signal takes, and where. Upper bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verl_ext.doctor.batches import Batches
from verl_ext.passes.signals_by_pass import Plan, plan
from verl_ext.signals.full_vocabulary import TOKEN_CHUNK, VOCABULARY_CHUNK
from verl_ext.signals.layer_similarity import BLOCK_NUMEL, CPU_BLOCK_NUMEL
from verl_ext.signals.request import CLEAN_VIEW, Entropy, Signal

FP32 = 4

COMPARISON_TENSORS = 10
"""(tokens, vocabulary) parts that a comparison of two views holds at a time."""

SIMILARITY_BLOCKS = 3
"""Blocks that a similarity holds at a time: tokens, summaries, products."""

TRAINER_TENSORS = 2
"""Padded fields that the trainer holds beside the signals: old log-probabilities, advantages."""


@dataclass(frozen=True)
class Amount:
    """So many bytes somewhere.

    Attributes:
        where: whose memory.
        size: bytes, on each device or on each host.
        formula: how they come about.
        per_device: whether each device needs them; otherwise each host, or the one of the trainer.
    """

    where: str
    size: int
    formula: str
    per_device: bool = False


@dataclass(frozen=True)
class Sizes:
    """What the amounts follow from.

    Attributes:
        batches: rows, and the ranks over which they are spread.
        hosts: machines over which the ranks are spread.
        devices: of each machine.
        response: most tokens of a response.
        tokens: most response tokens of a micro-batch of the log-prob pass, on one rank.
        logits: most positions of it whose logits are computed.
        rows: most rows of it.
        hidden: hidden size of the language model.
        vocabulary: its number of tokens.
        image_bytes: pixels of one row's images.
        on_cpu: whether the actor runs on the CPU, so that a device's memory is the host's.
    """

    batches: Batches
    hosts: int
    devices: int
    response: int
    tokens: int
    logits: int
    rows: int
    hidden: int
    vocabulary: int
    image_bytes: int
    on_cpu: bool

    @property
    def rows_on_host(self) -> int:
        """Most rows that one machine keeps."""
        return -(-self.batches.padded // self.hosts)


def amounts(signals: frozenset[Signal], keeps_images: list[str], sizes: Sizes) -> Iterator[Amount]:
    """Everything that measuring `signals` adds.

    Args:
        signals: of all methods.
        keeps_images: views that need the pixels.
        sizes: of the run.
    """
    stored = sorted(signal.field for signal in signals if signal != Entropy(1.0, CLEAN_VIEW))
    if not signals:
        return
    passes = plan(signals)
    yield _queue(len(stored), sizes)
    yield _trainer(len(stored), sizes)
    if passes.similarities:
        yield _similarity(len(passes.similarities), sizes)
    if passes.paired:
        yield _comparison(sizes)
    yield from _separate(passes, keeps_images, sizes)


def needed(found: Sequence[Amount], sizes: Sizes) -> tuple[int, int]:
    """Bytes on a device of its own, and on a host, at most; a CPU's ranks take theirs from the host."""
    on_device = sum(amount.size for amount in found if amount.per_device)
    on_host = sum(amount.size for amount in found if not amount.per_device)
    return (0, on_host + sizes.devices * on_device) if sizes.on_cpu else (on_device, on_host)


def readable(size: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _queue(signals: int, sizes: Sizes) -> Amount:
    rows = sizes.rows_on_host
    formula = f"{rows} rows x ({sizes.response} tokens x {FP32} B x {signals} signal(s) + 1 B)"
    return Amount("TransferQueue", rows * (sizes.response * FP32 * signals + 1), formula)


def _trainer(signals: int, sizes: Sizes) -> Amount:
    rows, fields = sizes.batches.rows, signals + TRAINER_TENSORS
    formula = f"{rows} rows x {sizes.response} tokens x {FP32} B x {fields} padded fields, while weights are computed"
    return Amount("trainer", rows * sizes.response * FP32 * fields, formula)


def _similarity(signals: int, sizes: Sizes) -> Amount:
    block = CPU_BLOCK_NUMEL if sizes.on_cpu else BLOCK_NUMEL
    numbers = min(block, sizes.tokens * sizes.hidden)
    size = FP32 * (sizes.rows * sizes.hidden + sizes.tokens * signals + SIMILARITY_BLOCKS * numbers)
    formula = (
        f"{FP32} B x ({sizes.rows} rows x {sizes.hidden} numbers, one layer at a time, + {sizes.tokens} tokens x "
        f"{signals} signal(s) + {SIMILARITY_BLOCKS} blocks of {numbers})"
    )
    return Amount("actor's own pass", size, formula, per_device=True)


def _comparison(sizes: Sizes) -> Amount:
    states = sizes.tokens * sizes.hidden
    part = min(sizes.tokens, TOKEN_CHUNK) * min(sizes.vocabulary, VOCABULARY_CHUNK)
    formula = (
        f"{FP32} B x ({sizes.tokens} tokens x {sizes.hidden} numbers of the clean view + {COMPARISON_TENSORS} parts of "
        f"{part} logits)"
    )
    return Amount("actor's two views", FP32 * (states + COMPARISON_TENSORS * part), formula, per_device=True)


def _separate(passes: Plan, keeps_images: list[str], sizes: Sizes) -> Iterator[Amount]:
    """Logits of a pass of its own; images that it changes are kept until then, on the host."""
    if passes.separate and sizes.logits:
        formula = f"{sizes.logits} tokens x {sizes.vocabulary} logits x {FP32} B, while verl's update is yet to come"
        yield Amount("ablated pass", sizes.logits * sizes.vocabulary * FP32, formula, per_device=True)
    kept = [view for view in passes.separate if view in keeps_images]
    if kept and sizes.image_bytes:
        rows = sizes.rows_on_host
        formula = f"{rows} rows x {readable(sizes.image_bytes)} of pixels, kept for {', '.join(kept)}"
        yield Amount("actor's host", rows * sizes.image_bytes, formula)
