# SPDX-License-Identifier: Apache-2.0
"""What a model's folder says about it, read without building or fetching anything."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_ext.errors import ConfigurationError

PATH = "actor_rollout_ref.model.path"
CONFIG = "config.json"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
VISION_KEYS = (
    "vision_config",
    "visual",
    "vision_tower_config",
    "mm_vision_tower",
    "vision_backbone",
    "img_processor",
    "embd_layer",
)
"""Under which models of any kind describe a vision tower."""
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
        """By which transformers and the registry of families know the model; "unknown" if it does not say."""
        return str(self.config.get("model_type") or "unknown")

    @property
    def has_vision(self) -> bool:
        """Whether the configuration names a vision tower."""
        return any(key in self.config for key in VISION_KEYS)

    def patch_size(self, default: int) -> int:
        """Side of a square vision patch in pixels; `default` where neither processor nor model gives one number."""
        vision = self.config.get("vision_config")
        sizes = (self.processor.get("patch_size"), vision.get("patch_size") if isinstance(vision, dict) else None)
        return next((size for size in sizes if isinstance(size, int)), default)


def model_files(path: str, processor_path: str | None = None) -> ModelFiles | None:
    """Read a model that lies on this machine; None if it does not.

    Args:
        path: a folder, or a model's name on the hub, which is looked up in the cache and never fetched.
        processor_path: where its processor is, if not there.

    Raises:
        ConfigurationError: a file cannot be read, or is no JSON object.
    """
    config = _json(path, CONFIG)
    return None if config is None else ModelFiles(path, config, _processor(processor_path or path))


def is_hub_id(path: str) -> bool:
    """Whether `path` may be a model's name on the hub."""
    return HUB_ID.fullmatch(path) is not None


def _cached(path: str, name: str) -> Path | None:
    """Where the cache of the hub has a file of a model; None if it does not."""
    # Imported late: most models lie in a folder.
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, name) if is_hub_id(path) else None
    return Path(found) if isinstance(found, str) else None


def _processor(path: str) -> dict[str, Any]:
    for name, key in PROCESSORS:
        content = _json(path, name) or {}
        numbers = content.get(key) if key else content
        if isinstance(numbers, dict) and numbers:
            return numbers
    return {}


def _json(path: str, name: str) -> dict[str, Any] | None:
    file = Path(path, name) if Path(path).is_dir() else _cached(path, name)
    if file is None or not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(key=PATH, value=path, remedy=f"its {name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(key=PATH, value=path, remedy=f"its {name} is no JSON object; get the model anew")
    return content
