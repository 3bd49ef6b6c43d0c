# SPDX-License-Identifier: Apache-2.0
"""Is a data set row trainable? Checked without any framework, so that tools can use it as well."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

from PIL import Image

from verl_ext.errors import DataError

PLACEHOLDER = "<image>"


def check_row(messages: Sequence[dict[str, Any]], images: Sequence[Any], videos: Sequence[Any], *, name: str) -> None:
    """Check one row.

    Args:
        messages: chat messages; text content marks each image by `<image>`.
        images: what verl accepts: dicts with `bytes` or `image`/`path`, paths, or PIL images.
        videos: must be empty.
        name: how to call the row in an error.

    Raises:
        DataError: the number of placeholders and images differ, an image is missing or unreadable, or there is a video.
    """
    if videos:
        raise DataError(f"{name}: it has a video; perception methods handle images only")
    marked = sum(message["content"].count(PLACEHOLDER) for message in messages if isinstance(message["content"], str))
    if all(isinstance(message["content"], str) for message in messages) and marked != len(images):
        raise DataError(f"{name}: the prompt marks {marked} images with {PLACEHOLDER} but the row holds {len(images)}")
    for position, image in enumerate(images):
        _check_image(image, f"{name}: image {position}")


def _check_image(image: Any, name: str) -> None:
    source = _source(image)
    if source is None:
        raise DataError(f"{name} is missing: neither bytes nor a path")
    if isinstance(source, Image.Image):
        return
    if isinstance(source, bytes):
        _decode(io.BytesIO(source), name)
        return
    path = os.fspath(source)
    if "://" in path and not path.startswith("file://"):
        return
    path = path.removeprefix("file://")
    if not os.path.exists(path):
        raise DataError(f"{name} is missing: no file {path}")
    _decode(path, name)


def _source(image: Any) -> Any:
    if isinstance(image, dict):
        return next((image[key] for key in ("bytes", "image", "path") if image.get(key) is not None), None)
    return image


def _decode(source: io.BytesIO | str, name: str) -> None:
    try:
        with Image.open(source) as opened:
            opened.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} cannot be read: {error}") from error
