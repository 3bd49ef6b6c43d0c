# SPDX-License-Identifier: Apache-2.0
"""Is the model here, and has it what perception methods need?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from verl_ext.doctor.checks import Check, failure, ok, warning
from verl_ext.doctor.subject import Subject

PATH = "actor_rollout_ref.model.path"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_checks(subject: Subject) -> Iterator[Check]:
    """Find the model and read its configuration and processor as verl's trainer does."""
    path = str(subject.get(PATH))
    where = location(path)
    if where is None:
        yield _absent(path)
        return
    from verl.utils.config import omega_conf_to_dataclass

    from verl_ext.models.facts import model_facts

    subject.model = omega_conf_to_dataclass(subject.composed.actor_rollout_ref.model)
    if subject.perception is not None:
        model_facts(subject.model)
    yield ok("model", f"{', '.join(subject.model.architectures or ())} in {where}; {_processor(subject)}")


def location(path: str) -> str | None:
    """Where a model lies on this machine; None if it does not."""
    from huggingface_hub import try_to_load_from_cache

    if os.path.isdir(path):
        return path
    cached = try_to_load_from_cache(path, "config.json") if HUB_ID.fullmatch(path) else None
    return "the Hugging Face cache" if isinstance(cached, str) else None


def _absent(path: str) -> Check:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if "://" in path:
        return warning("model", f"{path} is remote and was not looked into", "copy it here to have it checked")
    if not HUB_ID.fullmatch(path):
        return failure(
            "model", f"{PATH}={path}: no such folder", "write a folder, or an id such as Qwen/Qwen2.5-VL-7B-Instruct"
        )
    if HF_HUB_OFFLINE:
        return failure("model", f"{path} is not in the cache, and HF_HUB_OFFLINE is set", f"hf download {path}")
    return warning("model", f"{path} is not here yet; what needs its processor was left out", f"hf download {path}")


def _processor(subject: Subject) -> str:
    processor = getattr(subject.model, "processor", None)
    return "no image processor" if processor is None else f"processor {type(processor).__name__}"
