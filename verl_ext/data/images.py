# SPDX-License-Identifier: Apache-2.0
"""Images as a data set row holds them: decoded, upright, RGB, and as PNG or JPEG bytes."""

import hashlib
import io
import math
from contextlib import suppress
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageOps

from verl_ext.data.unreadable import UNREADABLE
from verl_ext.errors import DataError

_KEPT_FORMATS = frozenset({"PNG", "JPEG"})
_EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr"})


@dataclass(frozen=True)
class Picture:
    """An image of a row.

    Attributes:
        data: PNG or JPEG bytes that decode to upright RGB.
        width: in pixels, as in `data`.
        height: in pixels, as in `data`.
        digest: of the decoded pixels before any downscaling; see `pixel_digest`.
        downscaled: whether `data` has fewer pixels than the source.
    """

    data: bytes
    width: int
    height: int
    digest: bytes
    downscaled: bool


def load_picture(data: bytes, max_pixels: int | None = None) -> Picture:
    """Decode an image in full and make it upright RGB.

    Palettes, greys and CMYK are converted, alpha is put over white, the EXIF orientation is applied, and an image of
    more than `max_pixels` pixels is scaled down with its aspect ratio. Bytes of a PNG or JPEG that is all that already
    are kept as they are; others become PNG.

    Raises:
        DataError: the bytes are no readable image, hold several frames, or more than 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            _check_kind(image)
            rgb = as_rgb(image)
            kept = _is_upright_rgb(image)
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"cannot be read as an image: {error}") from error
    small = _downscaled(rgb, max_pixels)
    kept = kept and small is rgb
    return Picture(data if kept else as_png(small), *small.size, pixel_digest(rgb), small is not rgb)


def pixel_digest(image: Image.Image) -> bytes:
    """SHA-256 over the size and the bytes of an RGB image: equal for equal pixels, whatever the file format."""
    return hashlib.sha256(b"%dx%d " % image.size + image.tobytes()).digest()


def as_rgb(image: Image.Image) -> Image.Image:
    """An upright RGB copy of an image, its transparent parts over white."""
    turned = ImageOps.exif_transpose(image)
    if _is_transparent(turned):
        turned = turned.convert("RGBA")
        white = Image.new("RGBA", turned.size, "white")
        turned = Image.alpha_composite(white, turned)
    return turned.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says it is to be seen, without that tag; itself where it has none."""
    # vLLM passes over tags that cannot be read in the same way, so that it sees what the actor sees.
    with suppress(Exception):
        if _is_turned(image):
            return ImageOps.exif_transpose(image)
    return image


def as_png(image: Image.Image) -> bytes:
    """The image as the bytes of a PNG file, without metadata or colour profile."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", icc_profile=None)
    return buffer.getvalue()


def _check_kind(image: Image.Image) -> None:
    # A phone's MPO file is a JPEG with further views of the same photograph behind it.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise DataError(f"holds {getattr(image, 'n_frames', 0)} frames; write the one that is asked about")
    if image.mode not in _EIGHT_BIT:
        raise DataError(f"has pixels of mode {image.mode}; convert it to 8 bits a channel")


def _is_upright_rgb(image: Image.Image) -> bool:
    plain = not _is_turned(image) and not _is_transparent(image)
    return image.format in _KEPT_FORMATS and image.mode == "RGB" and plain


def _is_turned(image: Image.Image) -> bool:
    return image.getexif().get(ExifTags.Base.Orientation, 1) != 1


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info


def _downscaled(image: Image.Image, max_pixels: int | None) -> Image.Image:
    width, height = image.size
    if max_pixels is None or width * height <= max_pixels:
        return image
    scale = math.sqrt(max_pixels / (width * height))
    # A side that rounds down to nothing stays one pixel, and the other is cut to fit.
    small = max(1, int(width * scale)), max(1, int(height * scale))
    return image.resize((min(small[0], max_pixels), min(small[1], max_pixels)), Image.Resampling.LANCZOS)
