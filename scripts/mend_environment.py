# SPDX-License-Identifier: Apache-2.0
"""Forgets the packages of this environment that were installed in part, so that pip installs them anew.

pip takes a package for installed as soon as its metadata are there, even where a full disk or a signal ended it between
two files. Only the standard library is used: nothing else may be there yet.
"""

from __future__ import annotations

import csv
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def is_whole(metadata: Path) -> bool:
    """Whether every file that the package's RECORD lists is there, in its size.

    Args:
        metadata: The package's `.dist-info` folder.
    """
    record = metadata / "RECORD"
    if not record.is_file():
        return False
    # importlib.metadata has a reader of these, which leaves out what is missing from Python 3.12 on.
    rows = list(csv.reader(record.read_text(encoding="utf-8").splitlines()))
    return bool(rows) and all(is_there(metadata.parent / path, size) for path, _, size in rows if path[-4:] != ".pyc")


def is_there(path: Path, size: str) -> bool:
    """Whether a file is there, in the size that a RECORD gives, if any."""
    return path.is_file() and size in ("", str(path.stat().st_size))


def broken_packages(site_packages: Path) -> Iterator[Path]:
    """The `.dist-info` folders of packages that are not whole."""
    return (metadata for metadata in sorted(site_packages.glob("*.dist-info")) if not is_whole(metadata))


def main() -> None:
    """Remove their metadata; what lies around of their files, pip overwrites."""
    for metadata in list(broken_packages(Path(sysconfig.get_paths()["purelib"]))):
        print(f"{metadata.name.removesuffix('.dist-info')} is there in part and is installed again")
        shutil.rmtree(metadata)


if __name__ == "__main__":
    main()
