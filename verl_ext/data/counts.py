# SPDX-License-Identifier: Apache-2.0
"""What is counted while a file is written; the data card tells it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from verl_ext.data.images import Picture
from verl_ext.data.rows import Row


@dataclass
class FileCounts:
    """Counts of one file.

    Attributes:
        rows: rows written.
        images_per_row: number of rows by their number of images.
        answer_types: number of rows by `extra_info.answer_type`.
        sizes: number of images by their width and height in pixels.
        digests: the pixel digests of the images, each once; all that grows with every image.
        downscaled: images that `max_pixels` made smaller.
        unusable: what was wrong with each row that was left out for it.
        duplicates: rows left out because they share an image with held-out rows.
    """

    rows: int = 0
    images_per_row: Counter[int] = field(default_factory=Counter)
    answer_types: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    digests: set[bytes] = field(default_factory=set)
    downscaled: int = 0
    unusable: list[str] = field(default_factory=list)
    duplicates: int = 0

    def add(self, row: Row, pictures: Sequence[Picture] = ()) -> None:
        """Count a row that is written."""
        self.rows += 1
        self.images_per_row[len(pictures)] += 1
        self.answer_types[row["extra_info"]["answer_type"]] += 1
        self.sizes.update((picture.width, picture.height) for picture in pictures)
        self.digests.update(picture.digest for picture in pictures)
        self.downscaled += sum(picture.downscaled for picture in pictures)
