# SPDX-License-Identifier: Apache-2.0
"""How long prompts are with their images, by verl's own data set and the model's processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl.utils.dataset.rl_dataset import RLHFDataset, get_dataset_class
from verl.utils.tokenizer import build_multimodal_processor_inputs

from verl_ext.data.row_check import is_fetched
from verl_ext.doctor.subject import Subject


@dataclass(frozen=True)
class Measured:
    """One prompt: its tokens, with those of its images, and the bytes of its images' pixels for the model."""

    tokens: int
    image_bytes: int


def measure(subject: Subject, file: Path, rows: Sequence[Mapping[str, Any]]) -> list[Measured]:
    """The prompt of each row whose pictures are here; nothing without a processor, or of other data sets than verl's.

    Rows whose pictures verl would fetch are left out: a look at data asks the network for nothing.
    """
    processor = getattr(subject.model, "processor", None)
    if processor is None or not issubclass(get_dataset_class(subject.composed.data), RLHFDataset):
        return []
    prompt, images = (subject.get(f"data.{name}_key") for name in ("prompt", "image"))
    rows = [row for row in rows if not is_fetched(row[prompt], row.get(images) or [])]
    dataset = _dataset(subject, file, rows)
    return [_measured(dataset, processor, index) for index in range(len(rows))]


def _dataset(subject: Subject, file: Path, rows: Sequence[Mapping[str, Any]]) -> Any:
    """The run's data set over `rows` alone: the whole file would be read and measured."""

    class FirstRows(get_dataset_class(subject.composed.data)):  # type: ignore[misc]
        def _read_files_and_tokenize(self) -> None:
            self.dataframe = deepcopy(list(rows))

    assert subject.model is not None
    model, config = subject.model, subject.composed.data
    return FirstRows(data_files=[str(file)], tokenizer=model.tokenizer, config=config, processor=model.processor)


def _measured(dataset: Any, processor: Any, index: int) -> Measured:
    messages = dataset[index]["raw_prompt"]
    text = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False, **dataset.apply_chat_template_kwargs
    )
    images, _, _ = dataset._process_multi_modal_info(messages, dataset.image_patch_size, dataset.config)
    inputs = build_multimodal_processor_inputs(
        processor, text=[text], images=images, mm_processor_kwargs=dataset.mm_processor_kwargs
    )
    pixels = inputs.get("pixel_values")
    return Measured(len(inputs["input_ids"][0]), 0 if pixels is None else pixels.numel() * pixels.element_size())
