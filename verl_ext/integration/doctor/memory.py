# SPDX-License-Identifier: Apache-2.0
"""What the methods' signals take in memory, beyond what the same verl run takes without them. Upper bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from verl_ext.integration.doctor.batches import ACTOR, LOG_PROB, ROLLOUT, Batches, batches_of, cut
from verl_ext.integration.doctor.checks import Check, ok, warning
from verl_ext.integration.doctor.subject import Subject
from verl_ext.integration.plan import Plan, plan
from verl_ext.integration.validation import FUSED_KERNELS
from verl_ext.signals.full_vocabulary import TOKEN_CHUNK, VOCABULARY_CHUNK
from verl_ext.signals.request import CLEAN_VIEW, Entropy, Signal
from verl_ext.signals.similarity import BLOCK_NUMEL, CPU_BLOCK_NUMEL

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
        size: bytes.
        formula: how they come about.
        on_host: whether it is the memory of this machine, not of a device.
    """

    where: str
    size: int
    formula: str
    on_host: bool = True


@dataclass(frozen=True)
class Sizes:
    """What the amounts follow from.

    Attributes:
        batches: rows, and the ranks over which they are spread.
        response: most tokens of a response.
        tokens: most response tokens of a micro-batch of the log-prob pass, on one rank.
        logits: most positions of it whose logits are computed.
        rows: most rows of it.
        hidden: hidden size of the language model.
        vocabulary: its number of tokens.
        image_bytes: pixels of one row's images.
        on_cpu: whether the actor runs on the CPU.
    """

    batches: Batches
    response: int
    tokens: int
    logits: int
    rows: int
    hidden: int
    vocabulary: int
    image_bytes: int
    on_cpu: bool


def memory_checks(subject: Subject) -> Iterator[Check]:
    """One line an amount, and a warning where this machine has less free than is needed here."""
    if subject.perception is None:
        return
    if subject.model is None:
        yield ok("memory", "not added up: the model is not here")
        return
    keeps_images = [view for view, spec in subject.perception.views.items() if spec.kind != "drop_vision"]
    found = list(amounts(subject.perception.signals, keeps_images, sizes_of(subject)))
    for amount in found:
        yield ok(f"memory, {amount.where}", f"{readable(amount.size)} = {amount.formula}")
    yield from _too_much(sum(amount.size for amount in found if amount.on_host))


def sizes_of(subject: Subject) -> Sizes:
    """The sizes of a run whose model and perception section are known."""
    assert subject.model is not None
    text, batches = subject.model.hf_config.get_text_config(), batches_of(subject)
    response = int(subject.get("data.max_response_length"))
    rows, dynamic = batches.padded // batches.ranks, bool(subject.get(f"{ACTOR}.use_dynamic_bsz"))
    if not dynamic:
        rows = min(rows, int(subject.get(LOG_PROB, rows)))
    limit = rows * (int(subject.get("data.max_prompt_length")) + response)
    if dynamic:
        limit = min(limit, int(subject.get(f"{ROLLOUT}.log_prob_max_token_len_per_gpu")) * cut(subject))
    tokens = min(limit, rows * response)
    return Sizes(
        batches=batches,
        response=response,
        tokens=tokens,
        logits=_positions_with_logits(subject, tokens, limit),
        rows=rows,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        image_bytes=subject.prompts.image_bytes if subject.prompts else 0,
        on_cpu=subject.get("trainer.device") == "cpu",
    )


def _positions_with_logits(subject: Subject, response: int, every: int) -> int:
    """Positions of a micro-batch whose logits the ablated pass makes: none with fused kernels."""
    assert subject.perception is not None
    if subject.get(FUSED_KERNELS):
        return 0
    return every if subject.perception.options.response_only_logits is False else response


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


def readable(size: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _queue(signals: int, sizes: Sizes) -> Amount:
    rows = sizes.batches.padded
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
    return Amount("actor's own pass", size, formula, on_host=sizes.on_cpu)


def _comparison(sizes: Sizes) -> Amount:
    states = sizes.tokens * sizes.hidden
    part = min(sizes.tokens, TOKEN_CHUNK) * min(sizes.vocabulary, VOCABULARY_CHUNK)
    formula = (
        f"{FP32} B x ({sizes.tokens} tokens x {sizes.hidden} numbers of the clean view + {COMPARISON_TENSORS} parts of "
        f"{part} logits)"
    )
    return Amount("actor's two views", FP32 * (states + COMPARISON_TENSORS * part), formula, on_host=sizes.on_cpu)


def _separate(passes: Plan, keeps_images: list[str], sizes: Sizes) -> Iterator[Amount]:
    """Logits of a pass of its own; images that it changes are kept until then, on the host."""
    if passes.separate and sizes.logits:
        formula = f"{sizes.logits} tokens x {sizes.vocabulary} logits x {FP32} B, while verl's update is yet to come"
        yield Amount("ablated pass", sizes.logits * sizes.vocabulary * FP32, formula, on_host=sizes.on_cpu)
    kept = [view for view in passes.separate if view in keeps_images]
    if kept and sizes.image_bytes:
        rows = sizes.batches.padded
        formula = f"{rows} rows x {readable(sizes.image_bytes)} of pixels, kept for {', '.join(kept)}"
        yield Amount("actor's host", rows * sizes.image_bytes, formula)


def _too_much(needed: int) -> Iterator[Check]:
    free = psutil.virtual_memory().available
    if needed > free:
        found = f"{readable(needed)} on the host in all, where {readable(free)} are free"
        yield warning("memory", found, "write a smaller data.train_batch_size, or use more nodes")
