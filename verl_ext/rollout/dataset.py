# SPDX-License-Identifier: Apache-2.0
"""verl's data set, refusing rows whose images are missing, unreadable or not the ones that the prompt names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
from omegaconf import DictConfig
from PIL.Image import Image
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_ext.data.damage import first_damage
from verl_ext.data.images import upright
from verl_ext.data.row_check import IMAGES_ONLY, check_row
from verl_ext.errors import DataError
from verl_ext.logs import get_logger
from verl_ext.models.facts import image_tokens
from verl_ext.models.fitness import check_patch_size

logger = get_logger(__name__)


class CheckedRLHFDataset(RLHFDataset):
    """verl's `RLHFDataset`; chosen by `data.custom_cls` in the `perception` configuration group."""

    def _read_files_and_tokenize(self) -> None:
        """Read the files.

        Raises:
            DataError: one is damaged; names the file and, where it can be known, the rows.
            ConfigurationError: `data.image_patch_size` is not the processor's.
        """
        own = getattr(getattr(self.processor, "image_processor", None), "patch_size", None)
        if own is not None:
            check_patch_size(type(self.processor).__name__, own, self.image_patch_size)
        try:
            super()._read_files_and_tokenize()
        except DataError:
            raise
        except Exception as error:
            files = (Path(path) for path in self.data_files)
            if damage := first_damage(path for path in files if path.suffix == ".parquet"):
                raise DataError(damage) from error
            raise

    def __getitem__(self, item: int) -> dict[str, Any]:
        """The row.

        Raises:
            DataError: the row cannot be trained on; names the row and the reason.
        """
        row = self.dataframe[item]
        check_row(
            row[self.prompt_key],
            row.get(self.image_key) or [],
            row.get(self.video_key) or [],
            name=self._row_name(item, row),
            image_tokens=image_tokens(self.processor),
        )
        return super().__getitem__(item)

    @classmethod
    def _process_multi_modal_info(
        cls, messages: list[dict[str, Any]], image_patch_size: int, config: DictConfig
    ) -> tuple[list[Image], list[Any], list[Any]]:
        """verl's pictures, videos and sounds of a prompt (None where there are none), the pictures upright.

        vLLM turns a picture by its EXIF orientation and the actor's processor does not: they would see different ones.
        """
        images, videos, audios = super()._process_multi_modal_info(messages, image_patch_size, config)
        return images and [upright(image) for image in images], videos, audios

    def maybe_filter_out_long_prompts(self, dataframe: datasets.Dataset = None) -> datasets.Dataset:
        """verl's filter, saying at WARNING how many rows it left out (it also leaves out rows that it cannot read).

        Raises:
            DataError: a row has a video; names the row as it is numbered before the filter.
        """
        self._refuse_videos(dataframe)
        kept = super().maybe_filter_out_long_prompts(dataframe)
        dropped = len(dataframe) - len(kept)
        if dropped:
            logger.warning(
                "%d of %d rows of %s are left out: longer than data.max_prompt_length=%d tokens, or unreadable (verl "
                "prints the traceback of those above)",
                dropped,
                len(dataframe),
                self.original_data_files,
                self.max_prompt_length,
            )
        return kept

    def _refuse_videos(self, dataframe: datasets.Dataset) -> None:
        """Before the filter, which may leave out a row because it cannot read its video."""
        if self.video_key not in dataframe.column_names:
            return
        for item, row in enumerate(dataframe.select_columns(self.video_key)):
            if row[self.video_key]:
                raise DataError(f"{self._row_name(item, dataframe[item])}: it has a video; {IMAGES_ONLY}")

    def _row_name(self, item: int, row: dict[str, Any]) -> str:
        index = (row.get("extra_info") or {}).get("index")
        return f"row {item} of {list(self.original_data_files)} (extra_info.index {index})"
