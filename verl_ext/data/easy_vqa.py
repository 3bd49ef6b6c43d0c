# SPDX-License-Identifier: Apache-2.0
"""Convert easy-VQA (5,000 images of one coloured shape, 48,248 questions) to verl's parquet schema.

The images and questions come from the PyPI package ``easy-vqa`` (MIT licence), so nothing is
downloaded. Every row carries the columns that verl's ``RLHFDataset`` reads; rows without an image
hold an empty ``images`` list, which verl treats as a text-only prompt.
"""

import io
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from verl_ext.data.easy_vqa_images import describe_images
from verl_ext.data.easy_vqa_source import ANSWER_TYPES, EasyVqa, Question, all_questions, package_root, read_images
from verl_ext.data.markdown import markdown_table
from verl_ext.data.parquet import EXTRA_INFO, RowFile, row_schema
from verl_ext.data.progress import progress_bar
from verl_ext.data.row_check import PLACEHOLDER
from verl_ext.data.rows import BLIND_SUFFIX, Row, build_row, without_images
from verl_ext.errors import DataError

DATA_SOURCE = "easy_vqa"

BLIND_DATA_SOURCE = DATA_SOURCE + BLIND_SUFFIX

INSTRUCTION = r"Think first, then put the answer in \boxed{}."

_CARD = Path(__file__).with_name("easy_vqa_card.md")
_CARD_TYPES = ("yes_no", "color", "shape")


def write_easy_vqa(
    output_dir: str | Path,
    *,
    rl_fraction: float = 0.5,
    blind_fraction: float = 0.1,
    val_size: int = 512,
    questions: str = "all",
    seed: int = 0,
    root: Path | None = None,
) -> dict[str, int]:
    """Write the four parquet files and their data card; return the number of rows of each file.

    * ``sft.parquet``: the questions on ``1 - rl_fraction`` of the train images, with a ``response``
      column for a supervised warm start; ``blind_fraction`` of its rows have lost their image;
    * ``train.parquet``: the questions on the remaining train images, for reinforcement learning;
    * ``test.parquet``: ``val_size`` questions of the official test split;
    * ``test_blind.parquet``: the same questions, row by row, without the image, under a
      ``data_source`` of their own so that verl reports their accuracy separately.

    ``questions`` keeps one answer type ("color", "shape" or "yes_no") in all files but the first, or "all".

    The same arguments give the same rows. No file appears under its name before all are complete. Raises
    ``DataError`` for an option out of range, an unusable row, or a folder that cannot be written.
    """
    _check_fraction("rl_fraction", rl_fraction)
    _check_fraction("blind_fraction", blind_fraction)
    asked = _asked(questions)
    root = package_root() if root is None else root
    known = all_questions(root)
    _check_val_size(val_size, known, asked)
    data = EasyVqa(known, read_images(root, known))
    files = _select_rows(data, rl_fraction, blind_fraction, val_size, asked, seed)
    target = Path(output_dir)
    card = data_card(files, rl_fraction, blind_fraction, questions, seed)
    try:
        target.mkdir(parents=True, exist_ok=True)
        _write_files(target, files)
        (target / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error}") from error
    return {name: len(rows) for name, rows in files.items()}


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise DataError(f"{name}={value}: must lie between 0 and 1")


def _asked(questions: str) -> frozenset[str]:
    """The answer types to keep."""
    if questions != "all" and questions not in ANSWER_TYPES:
        raise DataError(f"questions={questions}: must be all, {', '.join(ANSWER_TYPES)}")
    return frozenset(ANSWER_TYPES if questions == "all" else (questions,))


def _check_val_size(val_size: int, questions: Iterable[Question], asked: frozenset[str]) -> None:
    most = len(_test_questions(questions, asked))
    if not 1 <= val_size <= most:
        raise DataError(f"val_size={val_size}: must lie between 1 and {most}, the number of test questions")


def _test_questions(questions: Iterable[Question], asked: frozenset[str]) -> list[Question]:
    return [question for question in questions if question.split == "test" and question.answer_type in asked]


def _select_rows(
    data: EasyVqa, rl_fraction: float, blind_fraction: float, val_size: int, asked: frozenset[str], seed: int
) -> dict[str, list[Row]]:
    # One generator per decision, so that changing one option leaves the other selections as they are.
    train = [question for question in data.questions if question.split == "train"]
    test = _test_questions(data.questions, asked)
    image_ids = sorted({question.image_id for question in train})
    rl_count = round(rl_fraction * len(image_ids))
    rl_images = set(random.Random(f"{seed}/rl images").sample(image_ids, rl_count))
    sft = [question for question in train if question.image_id not in rl_images]
    blind_count = round(blind_fraction * len(sft))
    blind = {q.index for q in random.Random(f"{seed}/blind rows").sample(sft, blind_count)}
    picked = sorted(random.Random(f"{seed}/test rows").sample(test, val_size), key=lambda question: question.index)
    descriptions = describe_images(data.questions)
    return {
        "sft": [_with_response(_row(data, q, blind=q.index in blind), q, descriptions) for q in sft],
        "train": [_row(data, q) for q in train if q.image_id in rl_images and q.answer_type in asked],
        "test": [_row(data, q) for q in picked],
        "test_blind": [_row(data, q, blind=True) for q in picked],
    }


def _row(data: EasyVqa, question: Question, blind: bool = False) -> Row:
    row = build_row(
        data_source=DATA_SOURCE,
        prompt=f"{PLACEHOLDER}{question.text} {INSTRUCTION}",
        images=[data.images[question.split, question.image_id]],
        ability="visual_question_answering",
        answer=question.answer,
        extra_info={
            "split": question.split,
            "index": question.index,
            "question": question.text,
            "answer_type": question.answer_type,
            "image_id": question.image_id,
        },
    )
    return without_images(row, len(data.questions)) if blind else row


def chat_messages(row: Row) -> list[dict[str, Any]]:
    """The prompt of one of the written rows as chat messages, its picture in the place of the placeholder."""
    (message,) = row["prompt"]
    if not row["images"]:
        return [message]
    image = Image.open(io.BytesIO(row["images"][0]["bytes"]))
    text = message["content"].removeprefix(PLACEHOLDER)
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]


def _with_response(row: Row, question: Question, descriptions: dict[tuple[str, int], str]) -> Row:
    # A row without its image keeps the description: what the model then learns to say is what it can guess, so that
    # clean and blind views differ by what the image tells and not by a fixed phrase.
    seen = descriptions[question.split, question.image_id]
    return {**row, "response": f"<think> {seen} </think> \\boxed{{{question.answer}}}"}


_EXTRA_INFO = {name: EXTRA_INFO[name] for name in ("split", "index", "question", "answer", "answer_type")}


def _write_files(target: Path, files: Mapping[str, Sequence[Row]]) -> None:
    total = sum(map(len, files.values()))
    with ExitStack() as stack, progress_bar("writing", total, "rows") as bar:
        for name, rows in files.items():
            schema = row_schema({**_EXTRA_INFO, "image_id": pa.int64()}, response=name == "sft")
            file = stack.enter_context(RowFile(target / f"{name}.parquet", schema))
            for row in rows:
                file.write(row)
                bar.update()
            file.finish()


def data_card(files: dict[str, list[Row]], rl_fraction: float, blind_fraction: float, questions: str, seed: int) -> str:
    header = ("file", "rows", "with image", "images", "yes/no", "colour", "shape")
    table = markdown_table(header, [_card_line(name, rows) for name, rows in files.items()])
    return _CARD.read_text(encoding="utf-8").format(
        rl_fraction=rl_fraction,
        blind_fraction=blind_fraction,
        questions=questions,
        seed=seed,
        table=table,
        blind_source=BLIND_DATA_SOURCE,
        placeholder=PLACEHOLDER,
        instruction=INSTRUCTION,
    )


def _card_line(name: str, rows: list[Row]) -> tuple[Any, ...]:
    types = Counter(row["extra_info"]["answer_type"] for row in rows)
    with_image = [row for row in rows if row["images"]]
    images = {(row["extra_info"]["split"], row["extra_info"]["image_id"]) for row in with_image}
    return (f"`{name}.parquet`", len(rows), len(with_image), len(images), *(types[t] for t in _CARD_TYPES))
