# SPDX-License-Identifier: Apache-2.0
"""Is a file of `torch.save` whole? Told without reading its tensors and without unpickling anything."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

ZIP = b"PK\x03\x04"
"""How torch's files begin since torch 1.6; older ones begin with a pickle, of which the length cannot be told."""
END, END_SIZE = b"PK\x05\x06", 22
"""How the last record of such a file begins, and its bytes."""


def defect(path: Path) -> str | None:
    """What is wrong with a file of `torch.save`, or of several in a row as in torch's distributed checkpoints.

    Returns:
        "missing", "empty", "cut off", "overwritten by zeros" or why it cannot be read; None if nothing is wrong, or if
        the format is another one.
    """
    if not path.is_file():
        return "missing"
    try:
        with path.open("rb") as file:
            head = file.read(len(ZIP))
        cut_off = ZIP.startswith(head) and not _has_index(path)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not head:
        return "empty"
    if not any(head):
        return "overwritten by zeros"
    return "cut off" if cut_off else None


def _has_index(path: Path) -> bool:
    """Whether the archive's table of contents, which is written last, is there and fits the file."""
    try:
        with zipfile.ZipFile(path), path.open("rb") as file:
            # Of several archives in a row, `ZipFile` is content with any that is near the end.
            file.seek(-END_SIZE, os.SEEK_END)
            return file.read(len(END)) == END
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        # The last two come from an index whose bytes have changed.
        return False
