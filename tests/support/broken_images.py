# SPDX-License-Identifier: Apache-2.0
"""Files on which Pillow's readers raise errors that are not an `OSError`, by the name of the error."""

import io
import struct

from PIL import Image


def _saved(kind, **options):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), "red").save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff_of_a_frame_without_width():
    # The tag of the second frame's width, 256, becomes a private one.
    width = struct.pack("<HH", 256, 4)
    first, second, third = _saved("TIFF", save_all=True, append_images=[Image.new("RGB", (12, 8))]).split(width)
    return first + width + second + struct.pack("<HH", 65000, 4) + third


def _dds_of_no_format():
    # The flags of the pixel format follow 80 bytes of header.
    data = bytearray(_saved("DDS"))
    data[80:84] = bytes(4)
    return bytes(data)


BROKEN_IMAGES = {"TypeError": _tiff_of_a_frame_without_width(), "NotImplementedError": _dds_of_no_format()}
