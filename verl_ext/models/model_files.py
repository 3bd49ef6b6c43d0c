# SPDX-License-Identifier: Apache-2.0
"""What a model's folder says about it, read without building or fetching anything."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "config.json"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
VISION_KEYS = ("vision_config", "visual", "vision_tower_config")
PROCESSORS = (("processor_config.json", "image_processor"), ("preprocessor_config.json", None))
"""Files with the image processor's numbers, and under which key."""


@dataclass(frozen=True)
class ModelFiles:
    """What was read.

    Attributes:
        path: as configured.
        config: the model's `config.json`.
        processor: the numbers of its image processor; empty where the folder has none.
    """

    path: str
    config: dict[str, Any]
    processor: dict[str, Any]

    @property
    def model_type(self) -> str:
        """By which transformers and the registry of families know the model."""
        return str(self.config.get("model_type"))

    @property
    def has_vision(self) -> bool:
        """Whether there is a vision tower in the configuration."""
        return any(self.config.get(key) for key in VISION_KEYS)

    def patch_size(self, default: int) -> int:
        """Side of a vision patch in pixels; `default` where neither processor nor model says."""
        vision = self.config.get("vision_config") or {}
        return int(self.processor.get("patch_size") or vision.get("patch_size") or default)


def model_files(path: str) -> ModelFiles | None:
    """Read a model that lies on this machine; None if it does not.

    Args:
        path: a folder, or a model's name on the hub, which is looked up in the cache and never fetched.
    """
    config = _json(path, CONFIG)
    return None if config is None else ModelFiles(path, config, _processor(path))


def is_hub_id(path: str) -> bool:
    """Whether `path` may be a model's name on the hub."""
    return HUB_ID.fullmatch(path) is not None


def cached(path: str, name: str) -> str | None:
    """Where the cache of the hub has a file of a model; None if it does not."""
    # Imported late: most models lie in a folder.
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, name) if is_hub_id(path) else None
    return found if isinstance(found, str) else None


def _processor(path: str) -> dict[str, Any]:
    for name, key in PROCESSORS:
        if content := _json(path, name):
            return content.get(key, {}) if key else content
    return {}


def _json(path: str, name: str) -> dict[str, Any] | None:
    file = Path(path, name) if Path(path).is_dir() else Path(cached(path, name) or "")
    return json.loads(file.read_text()) if file.is_file() else None
