# SPDX-License-Identifier: Apache-2.0
"""From a source to Parquet files in verl's schema and a data card, with little more than a row group in memory."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from verl_ext.data.card import data_card
from verl_ext.data.counts import FileCounts
from verl_ext.data.duplicates import digests_of
from verl_ext.data.images import Picture
from verl_ext.data.parquet import EXTRA_INFO, RowFile, row_schema
from verl_ext.data.parts import Part, parts_of
from verl_ext.data.prepare import RowMaker
from verl_ext.data.progress import progress_bar
from verl_ext.data.prompts import load_prompt
from verl_ext.data.rows import BLIND_SUFFIX, Row, without_images
from verl_ext.data.source import Source
from verl_ext.data.tables import Record
from verl_ext.errors import DataError


@dataclass(frozen=True)
class Options:
    """What a user decides about a conversion.

    Attributes:
        template: a name in `verl_ext.data.prompts.TEMPLATES`, or the path of a template file.
        blind: also write the held-out rows without their images, to a file of their own.
        skip_bad: leave unusable rows out, with a line on stderr each, instead of stopping at the first.
        keep_duplicates: keep training rows that share an image with held-out rows.
        held_out: further prepared files that training must share no image with.
        limit: read only so many rows of each split.
        val_size: so many rows of `train` to hold out, for a source without a split for that.
        seed: of that choice.
        max_pixels: scale larger images down to so many pixels.
    """

    template: str = "papo"
    blind: bool = False
    skip_bad: bool = False
    keep_duplicates: bool = False
    held_out: tuple[Path, ...] = ()
    limit: int | None = None
    val_size: int = 0
    seed: int = 0
    max_pixels: int | None = None

    def as_table(self) -> dict[str, str]:
        """The options as the data card shows them."""
        values = {**asdict(self), "held_out": ", ".join(map(str, self.held_out)) or None}
        return {name: "-" if value is None else str(value) for name, value in values.items()}


def convert(source: Source, output_dir: Path, options: Options) -> dict[str, FileCounts]:
    """Write a file for each split, and the data card; return the counts of each file by its name without suffix.

    The same source and options give the same bytes. Files appear under their names only when all are complete.

    Raises:
        DataError: an option does not fit the source, or a row is unusable and `skip_bad` is off.
    """
    parts, total = parts_of(source, limit=options.limit, val_size=options.val_size, seed=options.seed)
    if options.blind and all(part.is_train for part in parts):
        raise DataError("blind: no rows are held out whose images could be taken away; --val-size holds some out")
    prompt = load_prompt(options.template)
    conversion = _Conversion(source, RowMaker(source, prompt, options.max_pixels), output_dir, options, total)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            for part in parts:
                conversion.write(part, files)
        card = data_card(source=source, files=conversion.counts, prompt=prompt, options=options.as_table())
        (output_dir / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{output_dir}: cannot be written: {error}") from error
    return conversion.counts


class _Conversion:
    """One run of `convert`: its counts so far, and the images that training must not have."""

    def __init__(self, source: Source, maker: RowMaker, output_dir: Path, options: Options, total: int) -> None:
        self._source, self._maker, self._output_dir = source, maker, output_dir
        self._options, self._total = options, total
        self._schema = row_schema(EXTRA_INFO)
        self._held_out = digests_of(options.held_out)
        self.counts: dict[str, FileCounts] = {}

    def write(self, part: Part, files: ExitStack) -> None:
        """Write the rows of a part, and their blind copies; the files are closed with `files`."""
        out = self._open(part.name, files)
        blind = self._open(part.name + BLIND_SUFFIX, files) if self._options.blind and not part.is_train else None
        for row, pictures in self._rows(part):
            out.write(row)
            self.counts[part.name].add(row, pictures)
            if blind is not None and pictures:
                self._write_blind(blind, part, row)
        out.finish()
        if blind is not None:
            blind.finish()
        if not part.is_train:
            self._held_out |= self.counts[part.name].digests

    def _open(self, name: str, files: ExitStack) -> RowFile:
        self.counts[name] = FileCounts()
        return files.enter_context(RowFile(self._output_dir / f"{name}.parquet", self._schema))

    def _write_blind(self, out: RowFile, part: Part, row: Row) -> None:
        # No row of the source has an index as high as its number of rows.
        copy = without_images(row, self._total)
        out.write(copy)
        self.counts[part.name + BLIND_SUFFIX].add(copy)

    def _rows(self, part: Part) -> Iterator[tuple[Row, list[Picture]]]:
        for position, record in self._records(part):
            made = self._made(record, part, position)
            if made is not None and not self._is_duplicate(made[1], part):
                yield made

    def _records(self, part: Part) -> Iterator[tuple[int, Record]]:
        records = enumerate(self._source.records(part.split))
        with progress_bar(part.name, len(part.positions), "rows") as bar:
            for position, record in records:
                if position in part.positions:
                    yield position, record
                    bar.update()
                if bar.n == bar.total:
                    return

    def _made(self, record: Record, part: Part, position: int) -> tuple[Row, list[Picture]] | None:
        try:
            return self._maker.make(record, split=part.name, index=part.first_index + position)
        except DataError as error:
            if not self._options.skip_bad:
                raise DataError(f"{error} (--skip-bad leaves such rows out)") from error
            tqdm.write(f"left out: {error}", file=sys.stderr)
            self.counts[part.name].unusable.append(str(error))
        return None

    def _is_duplicate(self, pictures: list[Picture], part: Part) -> bool:
        if not part.is_train or self._options.keep_duplicates:
            return False
        shared = any(picture.digest in self._held_out for picture in pictures)
        self.counts[part.name].duplicates += shared
        return shared
