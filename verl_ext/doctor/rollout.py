# SPDX-License-Identifier: Apache-2.0
"""Will the rollout engine see the images, and have room for prompt and response?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from verl_ext.doctor.checks import Check, failure, ok, warning
from verl_ext.doctor.subject import Subject

ROLLOUT = "actor_rollout_ref.rollout"
LOAD_FORMAT = f"{ROLLOUT}.load_format"
ON_DEVICE = f"{ROLLOUT}.engine_kwargs.vllm.mm_device_do_normalize"
BUFFERS = "FusedInputNorm"
"""vLLM's module that keeps the image mean and std as buffers."""


def rollout_checks(subject: Subject) -> Iterator[Check]:
    """`load_format` and `max_model_len`."""
    yield _image_normalisation(subject)
    yield from _length(subject)


def _image_normalisation(subject: Subject) -> Check:
    """Dummy weights replace those buffers by noise, and weight updates never bring them back."""
    chosen = str(subject.get(LOAD_FORMAT))
    if chosen != "dummy" or subject.get(f"{ROLLOUT}.name") != "vllm" or subject.get(ON_DEVICE) is False:
        return ok("image normalisation", f"{LOAD_FORMAT}={chosen}")
    architectures = tuple(getattr(subject.model, "architectures", None) or ())
    remedy = f"write {LOAD_FORMAT}=auto"
    if not architectures:
        return warning("image normalisation", f"{LOAD_FORMAT}=dummy, and the model is not known", remedy)
    if keeps_normalisation(_models_folder(), architectures[0]):
        found = f"{LOAD_FORMAT}=dummy, but this vLLM keeps image mean and std of {architectures[0]} as buffers: noise"
        return failure("image normalisation", found, remedy)
    return ok("image normalisation", f"{LOAD_FORMAT}=dummy; this vLLM keeps no such buffers for {architectures[0]}")


def keeps_normalisation(models: Path | None, architecture: str) -> bool:
    """Whether vLLM keeps the image mean and std of an architecture as buffers of the model.

    Args:
        models: the folder of vLLM's models; None where there is none.
        architecture: as the model's configuration calls it.
    """
    if models is None:
        return False
    registry = (models / "registry.py").read_text()
    entry = re.search(rf'"{re.escape(architecture)}":\s*\(\s*"(\w+)"', registry)
    file = models / f"{entry[1]}.py" if entry else None
    return file is not None and file.is_file() and BUFFERS in file.read_text()


def _models_folder() -> Path | None:
    """Found without importing vLLM, which takes long."""
    spec = find_spec("vllm")
    return Path(spec.origin).parent / "model_executor" / "models" if spec and spec.origin else None


def _length(subject: Subject) -> Iterator[Check]:
    limit = subject.get(f"{ROLLOUT}.max_model_len")
    prompt, response = int(subject.get("data.max_prompt_length")), int(subject.get("data.max_response_length"))
    if limit is not None and int(limit) < prompt + response:
        yield warning(
            "sequence length",
            f"{ROLLOUT}.max_model_len={limit} is less than data.max_prompt_length={prompt} and "
            f"data.max_response_length={response} together, so responses to long prompts end early",
            f"write {prompt + response} or more",
        )
