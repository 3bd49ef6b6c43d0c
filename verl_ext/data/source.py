# SPDX-License-Identifier: Apache-2.0
"""Where the rows of a data set come from: the hub, a download of it, or a folder of one's own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from verl_ext.data.data_set import HubDataSet, Repository
from verl_ext.data.hub import fetch
from verl_ext.data.shards import check_complete
from verl_ext.data.tables import SUFFIXES, Record, count_records, read_records
from verl_ext.errors import DataError

TRAIN = "train"
"""The split that is trained on; all others are held out."""


@dataclass(frozen=True)
class Source:
    """Files to convert.

    Attributes:
        name: `data_source` of the rows.
        title: a line for the data card.
        origin: where the files come from, for the data card.
        licence: for the data card.
        ability: verl's column of that name.
        splits: the files of each split, in order.
        allow_outside: whether rows may name images outside of the folder of their file.
    """

    name: str
    title: str
    origin: str
    licence: str
    ability: str
    splits: Mapping[str, tuple[Path, ...]]
    allow_outside: bool = False

    def records(self, split: str) -> Iterator[Record]:
        """The rows of a split."""
        for path in self.splits[split]:
            yield from read_records(path)

    def count(self, split: str) -> int:
        """The number of rows of a split."""
        return sum(map(count_records, self.splits[split]))


def hub_source(data_set: HubDataSet, repository: Repository, revision: str) -> Source:
    """The data set as a commit of a repository has it, downloaded if it is not in the hub's cache yet."""
    folder, commit = fetch(data_set, repository, revision)
    return _source(data_set, repository, folder, f"`{repository.id}` at commit `{commit}`")


def local_source(data_set: HubDataSet, repository: Repository, path: Path) -> Source:
    """The data set in a download of a repository, or in one file, which is its first split.

    A folder may have the files as the repository does, or as `<split>*.parquet` or `<split>*.jsonl`.

    Raises:
        DataError: there is no such file, or one is part of a table of which other parts are missing.
    """
    return _source(data_set, repository, path, f"local files, laid out as `{repository.id}`")


def _source(data_set: HubDataSet, repository: Repository, path: Path, origin: str) -> Source:
    splits = {split: files for split, glob in repository.files.items() if (files := _files(path, split, glob))}
    if path.is_file():
        splits = {next(iter(repository.files)): (path,)}
    if not splits:
        needed = ", ".join(f"{glob} ({split})" for split, glob in repository.files.items())
        raise DataError(f"{path}: no files of {data_set.name}; {needed} or <split>*.jsonl are looked for")
    for files in splits.values():
        check_complete(files)
    return Source(data_set.name, data_set.title, origin, data_set.licence, data_set.ability, splits)


def _files(folder: Path, split: str, glob: str) -> tuple[Path, ...]:
    found = (tuple(sorted(folder.glob(name))) for name in (glob, f"{split}*.parquet", f"{split}*.jsonl"))
    return next(filter(None, found), ())


def folder_source(path: Path, *, test: Path | None, name: str, licence: str, allow_outside: bool) -> Source:
    """Images, questions and answers of one's own.

    Args:
        path: a table (.jsonl, .csv, .parquet), a folder with `metadata.jsonl` (or .csv, .parquet) beside its images,
            or a folder of such folders called `train` and, for what is held out, anything else.
        test: a table or folder to hold out as the split `test`, which `path` must not have.
        name: `data_source` of the rows.
        licence: for the data card.
        allow_outside: whether rows may name images outside of the folder of their table.

    Raises:
        DataError: there is no table, or there are two for the split `test`.
    """
    splits = _split_folders(path) if path.is_dir() and not _metadata(path) else {TRAIN: _table(path)}
    if test is not None:
        if "test" in splits:
            raise DataError(f"test={test}: {path} has a test split of its own, {splits['test']}; leave one of them out")
        splits["test"] = _table(test)
    files = {split: (table,) for split, table in splits.items()}
    return Source(name, f"{name}: images, questions and answers", "local files", licence, "vqa", files, allow_outside)


def _split_folders(path: Path) -> dict[str, Path]:
    splits = {folder.name: table for folder in sorted(path.iterdir()) if (table := _metadata(folder))}
    if not splits:
        raise DataError(f"{path}: neither it nor a folder in it has a metadata.jsonl, .csv or .parquet")
    return splits


def _metadata(folder: Path) -> Path | None:
    tables = (folder / f"metadata{suffix}" for suffix in SUFFIXES)
    return next((table for table in tables if table.is_file()), None)


def _table(path: Path) -> Path:
    if path.is_dir() and (table := _metadata(path)):
        return table
    if not path.is_file():
        raise DataError(f"{path}: is no table, nor a folder with metadata.jsonl, .csv or .parquet")
    return path
