# SPDX-License-Identifier: Apache-2.0
"""What the methods' signals take in memory, beyond what the same verl run takes without them. Upper bounds."""

from __future__ import annotations

from collections.abc import Iterator

import psutil

from verl_ext.configuration.validation import FUSED_KERNELS
from verl_ext.doctor.batches import ACTOR, LOG_PROB, ROLLOUT, batches_of, cut
from verl_ext.doctor.checks import Check, ok, warning
from verl_ext.doctor.memory_amounts import Sizes, amounts, needed, readable
from verl_ext.doctor.subject import Subject

SMALLER = {
    "host": "write a smaller data.train_batch_size, or use more nodes",
    "device": f"write a smaller {LOG_PROB}, or {ROLLOUT}.log_prob_max_token_len_per_gpu with dynamic batches",
}
"""What to do where there is too little memory."""


def memory_checks(subject: Subject) -> Iterator[Check]:
    """One line an amount, and warnings where this machine or one of its devices has less free than it needs."""
    if subject.perception is None:
        return
    if subject.model is None:
        yield ok("memory", "not added up: the model is not here")
        return
    keeps_images = [view for view, spec in subject.perception.views.items() if spec.kind != "drop_vision"]
    sizes = sizes_of(subject)
    found = list(amounts(subject.perception.signals, keeps_images, sizes))
    for amount in found:
        place = "device" if amount.per_device else "host"
        yield ok(f"memory, {amount.where}", f"{readable(amount.size)} per {place} = {amount.formula}")
    on_device, on_host = needed(found, sizes)
    yield from _too_much("host", on_host, psutil.virtual_memory().available)
    yield from _too_much("device", on_device, free_on_device(str(subject.get("trainer.device"))))


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
        hosts=int(subject.get("trainer.nnodes")),
        devices=int(subject.get("trainer.n_gpus_per_node")),
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


def free_on_device(device: str) -> int | None:
    """Bytes free on the device of this machine that has least; None where there is none of the kind `device`."""
    from verl.plugin.platform import get_platform

    platform = get_platform()
    if device == "cpu" or platform.device_name != device or not platform.is_available():
        return None
    return min(platform.device_module.mem_get_info(index)[0] for index in range(platform.device_count()))


def _too_much(place: str, size: int, free: int | None) -> Iterator[Check]:
    if free is not None and size > free:
        found = f"{readable(size)} on the {place} in all, where {readable(free)} are free"
        yield warning("memory", found, SMALLER[place])
