# SPDX-License-Identifier: Apache-2.0
"""Is the attention that the model is asked for installed?"""

from __future__ import annotations

from collections.abc import Iterator

from verl_ext.configuration.validation import STRATEGY
from verl_ext.doctor.checks import Check, failure, ok
from verl_ext.doctor.subject import Subject
from verl_ext.doctor.versions import installed

OVERRIDE = "actor_rollout_ref.model.override_config.attn_implementation"
DEFAULT = "flash_attention_2"
PACKED = "actor_rollout_ref.model.use_remove_padding"
SUBSTITUTES = ("flash-attn", "flash-attn-3", "flash-attn-4", "kernels")
"""Distributions that bring flash-attention; transformers fetches it where `kernels` is installed."""


def attention_checks(subject: Subject) -> Iterator[Check]:
    """The attention of actor and reference under FSDP; Megatron has its own."""
    if subject.get(STRATEGY) == "megatron":
        return
    chosen, packed = str(subject.get(OVERRIDE, DEFAULT)), bool(subject.get(PACKED))
    if set(SUBSTITUTES) & set(installed()):
        yield ok("attention", f"{chosen}, {'packed' if packed else 'padded'} sequences")
    elif chosen.startswith("flash_attention"):
        found = f"{chosen}, which needs flash-attn{'' if subject.get(OVERRIDE) else ', is the default'}"
        yield failure("attention", found, f"install flash-attn, or write +{OVERRIDE}=sdpa {PACKED}=False")
    elif packed and subject.get("trainer.device") != "cpu":
        yield failure("attention", f"{PACKED}=True needs flash-attn", f"install flash-attn, or write {PACKED}=False")
    else:
        yield ok("attention", f"{chosen}, {'packed' if packed else 'padded'} sequences")
