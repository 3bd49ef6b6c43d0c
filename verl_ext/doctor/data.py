# SPDX-License-Identifier: Apache-2.0
"""Are the data files there, can their first rows be trained on, and have all rows their images?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from omegaconf import ListConfig

from verl_ext.data.row_check import check_row, is_fetched
from verl_ext.doctor.checks import Check, failure, ok, one_line, warning
from verl_ext.doctor.images import image_check
from verl_ext.doctor.prompts import Measured, measure
from verl_ext.doctor.subject import Prompts, Subject
from verl_ext.errors import DataError
from verl_ext.models.facts import image_tokens

ROWS = 16
"""Rows of each file that are looked into; the others only have their images counted."""
TRAIN = "data.train_files"
FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json"}
PREPARE = "correct the path, or write the file; `verl-ext data --help` lists what it can prepare"

Rows = Sequence[Mapping[str, Any]]


def data_checks(subject: Subject) -> Iterator[Check]:
    """Up to two checks a file, on its first rows and on the images of all; and one for the number of training rows."""
    for key in (TRAIN, "data.val_files"):
        for path in files(subject, key):
            yield from _file_checks(subject, key, path)
    yield from _too_few(subject)


def files(subject: Subject, key: str) -> list[str]:
    """The paths that a key names."""
    value = subject.get(key, [])
    return [str(path) for path in value] if isinstance(value, list | ListConfig) else [str(value)]


def _file_checks(subject: Subject, key: str, path: str) -> Iterator[Check]:
    if "://" in path:
        yield warning(key, f"{path} is remote and was not looked into", "copy it here to have it checked")
        return
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        yield failure(key, f"no file {path}", PREPARE)
    elif file.suffix not in FORMATS:
        yield failure(key, f"{path}: verl reads {', '.join(FORMATS)}", "convert it")
    else:
        yield from _row_checks(subject, key, file)
        if subject.perception is not None and file.suffix == ".parquet":
            prompts, images = subject.get("data.prompt_key"), subject.get("data.image_key")
            yield from image_check(file, prompts, images, training=key == TRAIN)


def _row_checks(subject: Subject, key: str, file: Path) -> Iterator[Check]:
    rows = first_rows(file)
    if not rows:
        yield failure(key, f"{file} has no rows", PREPARE)
        return
    if key == TRAIN and not subject.rows:
        subject.rows = rows
    try:
        _check_rows(subject, file, rows)
    except DataError as error:
        yield failure(key, one_line(str(error)), _columns(rows))
        return
    yield from _content_checks(subject, key, file, rows)


def first_rows(file: Path) -> Rows:
    """The first rows of a parquet or json file, as verl's data set has them."""
    stream = datasets.load_dataset(FORMATS[file.suffix], data_files=str(file), split="train", streaming=True)
    return list(stream.take(ROWS))


def _check_rows(subject: Subject, file: Path, rows: Rows) -> None:
    """What this package's data set checks row by row.

    Raises:
        DataError: names the row.
    """
    prompt, images, videos = (subject.get(f"data.{name}_key") for name in ("prompt", "image", "video"))
    tokens = image_tokens(getattr(subject.model, "processor", None))
    for index, row in enumerate(rows):
        if prompt not in row:
            raise DataError(f"{file}: no column {prompt}, which data.prompt_key names")
        if subject.perception is not None:
            name = f"{file}: row {index}"
            check_row(row[prompt], row.get(images) or [], row.get(videos) or [], name=name, image_tokens=tokens)


def _columns(rows: Rows) -> str:
    return f"its columns are {', '.join(rows[0])}; see data.prompt_key and data.image_key"


def _content_checks(subject: Subject, key: str, file: Path, rows: Rows) -> Iterator[Check]:
    with_image = sum(bool(row.get(subject.get("data.image_key"))) for row in rows)
    if key == TRAIN and subject.perception is not None and not with_image:
        found = f"{file}: none of the first {len(rows)} rows has an image in the column {subject.get('data.image_key')}"
        yield warning(key, found, f"without images the methods change nothing; {_columns(rows)}")
        return
    sizes = measure(subject, file, rows)
    if key == TRAIN and sizes and subject.prompts is None:
        subject.prompts = Prompts(max(size.tokens for size in sizes), max(size.image_bytes for size in sizes))
    found = f"{file}: {_count(file)}{with_image} of the first {len(rows)} with an image"
    yield _lengths(subject, key, f"{found}{_fetched(subject, rows)}", sizes)


def _fetched(subject: Subject, rows: Rows) -> str:
    """What is said of rows whose pictures are somewhere in the network."""
    prompt, images = (subject.get(f"data.{name}_key") for name in ("prompt", "image"))
    count = sum(is_fetched(row[prompt], row.get(images) or []) for row in rows)
    return f", {count} with pictures that verl fetches and this does not" if count else ""


def _lengths(subject: Subject, key: str, found: str, sizes: Sequence[Measured]) -> Check:
    if not sizes:
        return ok(key, found)
    limit = int(subject.get("data.max_prompt_length"))
    lengths = [size.tokens for size in sizes]
    found = f"{found}, prompts of {min(lengths)} to {max(lengths)} tokens"
    too_long = sum(length > limit for length in lengths)
    if not too_long:
        return ok(key, f"{found} (data.max_prompt_length={limit})")
    found = f"{found}, {too_long} longer than data.max_prompt_length={limit}"
    if subject.get("data.filter_overlong_prompts"):
        return warning(key, f"{found}, which are left out", "raise it, or shrink the images")
    return failure(key, f"{found}, whose groups fail in the rollout", "raise it, or data.filter_overlong_prompts=True")


def _count(file: Path) -> str:
    return f"{pq.read_metadata(file).num_rows} rows, " if file.suffix == ".parquet" else ""


def _too_few(subject: Subject) -> Iterator[Check]:
    paths = [Path(os.path.expanduser(path)) for path in files(subject, TRAIN)]
    if not all(path.is_file() and path.suffix == ".parquet" for path in paths):
        return
    rows, batch = sum(pq.read_metadata(path).num_rows for path in paths), int(subject.get("data.train_batch_size"))
    if rows < batch:
        found = f"{rows} rows are fewer than data.train_batch_size={batch}, so that an epoch has no step"
        yield failure(TRAIN, found, "write a smaller data.train_batch_size")
