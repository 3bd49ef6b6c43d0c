# SPDX-License-Identifier: Apache-2.0
"""From a row of a source to a row of verl's schema, and its images."""

from verl_ext.data.answers import answer_type
from verl_ext.data.examples import read_example
from verl_ext.data.image_files import ImageFiles
from verl_ext.data.images import Picture, load_picture
from verl_ext.data.prompts import Prompt
from verl_ext.data.row_check import check_row
from verl_ext.data.rows import Row, build_row, unmarked
from verl_ext.data.source import Source
from verl_ext.data.tables import Record
from verl_ext.errors import DataError


class RowMaker:
    """Makes rows of a source.

    Args:
        source: names the rows, and says which image files they may read.
        prompt: the template of the prompts.
        max_pixels: larger images are scaled down to so many pixels; None leaves them.
    """

    def __init__(self, source: Source, prompt: Prompt, max_pixels: int | None) -> None:
        self._source, self._prompt, self._max_pixels = source, prompt, max_pixels

    def make(self, record: Record, *, split: str, index: int) -> tuple[Row, list[Picture]]:
        """The row and its images; `DataError`, with the record's name, when verl could not train on it."""
        try:
            row, pictures = self._made(record, split, index)
        except DataError as error:
            raise DataError(f"{record.name}: {error}") from error
        _check_encodable(row, record.name)
        check_row(row["prompt"], row["images"], [], name=record.name)
        return row, pictures

    def _made(self, record: Record, split: str, index: int) -> tuple[Row, list[Picture]]:
        example = read_example(record.values, ImageFiles(record.folder, allow_outside=self._source.allow_outside))
        pictures = [load_picture(image, self._max_pixels) for image in example.images]
        row = build_row(
            data_source=self._source.name,
            prompt=self._prompt.render(example.question),
            images=[picture.data for picture in pictures],
            ability=self._source.ability,
            answer=example.answer,
            extra_info={
                "split": split,
                "index": index,
                "question": unmarked(example.question),
                "answer_type": answer_type(example.answer),
                "source_id": example.source_id,
            },
        )
        return row, pictures


def _check_encodable(row: Row, name: str) -> None:
    texts = (row["prompt"][0]["content"], row["extra_info"]["answer"], row["extra_info"]["source_id"])
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name}: has half a character: {error}") from error
