# SPDX-License-Identifier: Apache-2.0
"""Is a data set row trainable? Checked without any framework, so that tools can use it as well."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

from PIL import Image

from verl_ext.data.unreadable import UNREADABLE
from verl_ext.errors import DataError
from verl_ext.models.family import QWEN_IMAGE_TOKENS

PLACEHOLDER = "<image>"
SOURCES = ("bytes", "image", "image_url")
"""Keys of an image's dict, in the order in which verl looks for them."""
ADDRESSES = ("http://", "https://")
"""How the pictures begin that verl fetches."""
REMOTE = (*ADDRESSES, "data:image")
"""Images that are not looked into."""
LARGEST_RATIO = 200
"""Of the longer to the shorter side; Qwen-VL's processor refuses more."""
IMAGES_ONLY = "perception methods work on images only so far"
"""Why a row with a video is refused."""


def check_row(
    messages: Sequence[dict[str, Any]],
    images: Sequence[Any],
    videos: Sequence[Any],
    *,
    name: str,
    image_tokens: Sequence[str] = QWEN_IMAGE_TOKENS,
) -> None:
    """Check one row.

    Args:
        messages: chat messages; text content marks each image by `<image>`.
        images: what verl accepts: dicts with `bytes`, `image` or `image_url`, paths, URLs, or PIL images.
        videos: must be empty; so must be video parts of structured content.
        name: how to call the row in an error.
        image_tokens: the model's tokens that stand for images or frame them; typed in a question they would ask for
            features that nobody has.

    Raises:
        DataError: the number of placeholders and images differ, an image is missing, unreadable or too narrow, a text
            has a token that stands for an image, or there is a video.
    """
    if videos or _has_video_part(messages):
        raise DataError(f"{name}: it has a video; {IMAGES_ONLY}")
    _check_text(messages, name, image_tokens)
    marked = sum(message["content"].count(PLACEHOLDER) for message in messages if isinstance(message["content"], str))
    if all(isinstance(message["content"], str) for message in messages) and marked != len(images):
        raise DataError(f"{name}: the prompt marks {marked} images with {PLACEHOLDER} but the row holds {len(images)}")
    for position, image in enumerate(images):
        _check_image(image, f"{name}: image {position}")


def is_fetched(messages: Sequence[dict[str, Any]], images: Sequence[Any]) -> bool:
    """Whether verl would ask the network for a picture of a row, which may name it beside or within its messages."""
    contents = (message["content"] for message in messages)
    parts = [part for content in contents if not isinstance(content, str) for part in content]
    return any(_begins_remotely(value) for value in (*images, *parts))


def _begins_remotely(value: Any) -> bool:
    """Whether a text anywhere in `value` is an address."""
    if isinstance(value, dict):
        return any(_begins_remotely(inner) for inner in value.values())
    return isinstance(value, str) and value.lower().startswith(ADDRESSES)


def _check_text(messages: Sequence[dict[str, Any]], name: str, image_tokens: Sequence[str]) -> None:
    for message in messages:
        content = message["content"]
        parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
        for token in image_tokens:
            if any(token in part for part in parts):
                raise DataError(f"{name}: the text has the token {token}, which stands for an image; take it out")


def _has_video_part(messages: Sequence[dict[str, Any]]) -> bool:
    structured = (message["content"] for message in messages if isinstance(message["content"], list | tuple))
    return any(isinstance(part, dict) and part.get("type") == "video" for content in structured for part in content)


def _check_image(image: Any, name: str) -> None:
    source = _source(image)
    if source is None:
        raise DataError(f"{name} is missing: verl reads a path, a URL, or a dict with one of {', '.join(SOURCES)}")
    if isinstance(source, Image.Image):
        return
    if isinstance(source, bytes):
        _decode(io.BytesIO(source), name)
        return
    path = os.fspath(source)
    if path.startswith(REMOTE):
        return
    path = path.removeprefix("file://")
    if not os.path.exists(path):
        raise DataError(f"{name} is missing: no file {path}")
    _decode(path, name)


def _source(image: Any) -> Image.Image | bytes | str | os.PathLike[str] | None:
    """Where verl takes the image from; None where it would find nothing that it understands."""
    if isinstance(image, dict):
        # The first key that is there, even if empty: verl looks no further.
        key = next((key for key in SOURCES if key in image), None)
        source = image.get(key)
        return source if isinstance(source, bytes if key == "bytes" else str | Image.Image) else None
    return image if isinstance(image, Image.Image | str | os.PathLike) else None


def _decode(source: io.BytesIO | str, name: str) -> None:
    try:
        with Image.open(source) as opened:
            opened.load()
            short, long = sorted(opened.size)
    except UNREADABLE as error:
        raise DataError(f"{name} cannot be read: {error}") from error
    if long > LARGEST_RATIO * short:
        raise DataError(f"{name} is {long} x {short} pixels; the longer side may be {LARGEST_RATIO} times the shorter")
