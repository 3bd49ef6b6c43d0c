# SPDX-License-Identifier: Apache-2.0
"""Image files that rows name by path: below one folder, never fetched from anywhere."""

import re
from pathlib import Path

from verl_ext.errors import DataError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class ImageFiles:
    """Reads images whose paths are relative to a folder.

    Args:
        root: the folder.
        allow_outside: also read absolute paths and paths that leave the folder, be it by `..` or by a link.
    """

    def __init__(self, root: Path, *, allow_outside: bool = False) -> None:
        self._root = root.resolve()
        self._allow_outside = allow_outside

    def read(self, name: str) -> bytes:
        """The bytes of a file; `DataError` when it is a URL, leaves the folder, or cannot be read."""
        if _URL.match(name):
            raise DataError(f"image {name!r} is a URL, which is not fetched; download it and give its path")
        try:
            path = (self._root / name).resolve()
            self._check_inside(path, name)
            return path.read_bytes()
        except DataError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"image {name!r} cannot be read: {reason}") from error

    def _check_inside(self, path: Path, name: str) -> None:
        if not self._allow_outside and not path.is_relative_to(self._root):
            raise DataError(f"image {name!r} lies outside of {self._root}; --allow-outside reads it nevertheless")
