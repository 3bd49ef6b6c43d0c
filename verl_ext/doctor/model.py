# SPDX-License-Identifier: Apache-2.0
"""Is the model here, of which family is it, and has it what perception methods need?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from verl_ext.doctor.checks import Check, failure, ok, warning
from verl_ext.doctor.subject import Subject
from verl_ext.models.admission import reason_against
from verl_ext.models.available import available_families
from verl_ext.models.meaning import meaning
from verl_ext.models.model_files import ModelFiles, is_hub_id, model_files

PATH = "actor_rollout_ref.model.path"


def model_checks(subject: Subject) -> Iterator[Check]:
    """Find the model, say of which family it is, and read its configuration and processor as verl's trainer does."""
    path = str(subject.get(PATH))
    files = model_files(path)
    if files is None:
        yield _absent(path)
        return
    yield _family(files, subject)
    if subject.refused and files.model_type not in available_families():
        return
    from verl.utils.config import omega_conf_to_dataclass

    from verl_ext.models.facts import model_facts

    subject.model = omega_conf_to_dataclass(subject.composed.actor_rollout_ref.model)
    if subject.perception is not None:
        model_facts(subject.model)
    where = path if Path(path).is_dir() else "the Hugging Face cache"
    yield ok("model", f"{', '.join(subject.model.architectures or ())} in {where}; {_processor(subject)}")


def _family(files: ModelFiles, subject: Subject) -> Check:
    family = available_families().get(files.model_type)
    if family is not None:
        return ok("family", meaning(family))
    text = f"model_type {files.model_type}: {reason_against(files)}"
    if subject.perception is None and not subject.refused:
        return ok("family", f"{text}; without +perception that is verl's business alone")
    return warning("family", text, f"choose one of {', '.join(available_families())}")


def _absent(path: str) -> Check:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if Path(path).is_dir():
        return failure("model", f"{PATH}={path}: the folder has no config.json", "write the folder of a model")
    if "://" in path:
        return warning("model", f"{path} is remote and was not looked into", "copy it here to have it checked")
    if not is_hub_id(path):
        return failure(
            "model", f"{PATH}={path}: no such folder", "write a folder, or an id such as Qwen/Qwen2.5-VL-7B-Instruct"
        )
    if HF_HUB_OFFLINE:
        return failure("model", f"{path} is not in the cache, and HF_HUB_OFFLINE is set", f"hf download {path}")
    return warning("model", f"{path} is not here yet; what needs its processor was left out", f"hf download {path}")


def _processor(subject: Subject) -> str:
    processor = getattr(subject.model, "processor", None)
    return "no image processor" if processor is None else f"processor {type(processor).__name__}"
