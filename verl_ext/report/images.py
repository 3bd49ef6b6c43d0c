# SPDX-License-Identifier: Apache-2.0
"""Pictures of the records, decoded and written anew, so that a page holds nothing but pixels."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

from PIL import Image

from verl_ext.data.unreadable import UNREADABLE
from verl_ext.errors import DataError

LONGEST_SIDE = 256
"""Pixels, the most that records hold."""
_MOST_PIXELS = 64 * 2**20


def thumbnail(content: bytes, where: str) -> Image.Image:
    """The RGB picture in a PNG file, without its metadata, at most `LONGEST_SIDE` pixels wide and high.

    Args:
        content: the file.
        where: names the file in the error.

    Raises:
        DataError: the content is not a PNG that can be decoded.
    """
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise DataError(f"{where}: a picture of {image.width} x {image.height} pixels is too large")
            pixels = image.convert("RGB")
    except UNREADABLE as error:
        raise DataError(f"{where}: not a PNG picture: {error}") from error
    pixels.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return Image.frombytes("RGB", pixels.size, pixels.tobytes())


def data_uri(image: Image.Image) -> str:
    """The picture as a PNG within a URI."""
    file = BytesIO()
    image.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode('ascii')}"
