# SPDX-License-Identifier: Apache-2.0
"""The errors that say that bytes are no image, or a broken one."""

import struct
import zlib

from PIL import Image

UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    EOFError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's readers raise on damaged files: a TIFF frame without a width is a `TypeError`, a cut AVIF a
`RuntimeError`."""
