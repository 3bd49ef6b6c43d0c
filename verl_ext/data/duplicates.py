# SPDX-License-Identifier: Apache-2.0
"""Images that training shares with held-out questions, found by their pixels."""

from collections.abc import Iterable
from pathlib import Path

from verl_ext.data.images import load_picture
from verl_ext.data.progress import progress_bar
from verl_ext.data.tables import count_records, read_records
from verl_ext.errors import DataError


def digests_of(paths: Iterable[Path]) -> set[bytes]:
    """The pixel digests of all images in prepared Parquet files, as `Picture.digest` gives them.

    Images that were scaled down in such a file are not recognised in a source that has them in full.
    """
    digests: set[bytes] = set()
    for path in paths:
        with progress_bar(f"held out, {path.name}", count_records(path), "rows") as bar:
            for record in read_records(path):
                digests.update(_row_digests(record.name, record.values.get("images")))
                bar.update()
    return digests


def _row_digests(name: str, images: object) -> Iterable[bytes]:
    if not isinstance(images, list) or not all(isinstance(image, dict) and image.get("bytes") for image in images):
        raise DataError(f"{name}: holds no images as {{bytes}}; a file that `verl-ext data` wrote is needed")
    return [load_picture(image["bytes"]).digest for image in images]
