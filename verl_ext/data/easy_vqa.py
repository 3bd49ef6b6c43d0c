# SPDX-License-Identifier: Apache-2.0
"""Convert easy-VQA (5,000 images of one coloured shape, 48,248 questions) to verl's parquet schema.

The images and questions come from the PyPI package ``easy-vqa`` (MIT licence), so nothing is
downloaded. Every row carries the columns that verl's ``RLHFDataset`` reads; rows without an image
hold an empty ``images`` list, which verl treats as a text-only prompt.
"""

import importlib.util
import io
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from verl_ext.data.images import as_png
from verl_ext.data.markdown import markdown_table
from verl_ext.data.parquet import EXTRA_INFO, RowFile, row_schema
from verl_ext.data.progress import progress_bar
from verl_ext.data.row_check import PLACEHOLDER
from verl_ext.data.rows import BLIND_SUFFIX, Row, build_row, without_images
from verl_ext.data.unreadable import UNREADABLE
from verl_ext.errors import DataError

DATA_SOURCE = "easy_vqa"
BLIND_DATA_SOURCE = DATA_SOURCE + BLIND_SUFFIX
ANSWER_TYPES = ("color", "shape", "yes_no")
INSTRUCTION = r"Think first, then put the answer in \boxed{}."

COLORS = frozenset({"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"})
SHAPES = frozenset({"circle", "rectangle", "triangle"})
_ANSWERS = COLORS | SHAPES | {"yes", "no"}
_NEGATIONS = frozenset({"no", "not"})


@dataclass(frozen=True)
class Question:
    """One question; ``index`` counts through the train split and then the test split."""

    index: int
    split: str
    image_id: int
    text: str
    answer: str

    @property
    def answer_type(self) -> str:
        """``"yes_no"``, ``"color"`` or ``"shape"``."""
        if self.answer in COLORS:
            return "color"
        return "shape" if self.answer in SHAPES else "yes_no"


@dataclass(frozen=True)
class EasyVqa:
    """The whole data set in memory: the questions in order, and PNG bytes (RGB) by (split, image id)."""

    questions: tuple[Question, ...]
    images: dict[tuple[str, int], bytes]


def load_easy_vqa(root: Path | None = None) -> EasyVqa:
    """Read ``{train,test}/questions.json`` and ``{train,test}/images/ID.png`` below ``root``.

    ``root`` defaults to the installed package's data folder. Raises ``DataError`` when the package
    is absent or when a question, answer or image is not what easy-VQA promises.
    """
    root = package_root() if root is None else root
    questions = _all_questions(root)
    return EasyVqa(questions, _read_images(root, questions))


def _all_questions(root: Path) -> tuple[Question, ...]:
    questions: list[Question] = []
    for split in ("train", "test"):
        questions += _read_questions(root / split / "questions.json", split, first_index=len(questions))
    return tuple(questions)


def package_root() -> Path:
    """The data folder of the installed package, found without importing it; ``DataError`` when absent."""
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None or spec.origin is None:
        raise DataError("the package easy-vqa is not installed: pip install easy-vqa")
    return Path(spec.origin).parent / "data"


def _read_questions(path: Path, split: str, first_index: int) -> list[Question]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds a {type(rows).__name__}, a list of [question, answer, image id] is needed")
    return [_parse_row(path, split, row, first_index + position) for position, row in enumerate(rows)]


def _parse_row(path: Path, split: str, row: Any, index: int) -> Question:
    match row:
        case [str(text), str(answer), int(image_id)] if text and answer in _ANSWERS:
            return Question(index, split, image_id, text, answer)
    raise DataError(f"{path}: row with index {index} is not [question, known answer, image id]: {row!r}")


def _read_images(root: Path, questions: Iterable[Question]) -> dict[tuple[str, int], bytes]:
    keys = dict.fromkeys((question.split, question.image_id) for question in questions)
    images: dict[tuple[str, int], bytes] = {}
    with progress_bar("reading", len(keys), "images") as bar:
        for split, image_id in keys:
            images[split, image_id] = _read_png(root / split / "images" / f"{image_id}.png")
            bar.update()
    return images


def _read_png(path: Path) -> bytes:
    try:
        with Image.open(path) as image:
            return as_png(image.convert("RGB"))
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from error


def describe_images(questions: Iterable[Question]) -> dict[tuple[str, int], str]:
    """Say what every image shows, such as ``"a red circle"``, from its questions and answers alone.

    An attribute that the questions leave open is left out (``"a red shape"``, ``"a circle"``,
    ``"a shape"``). Keys are (split, image id). Raises ``DataError`` when two questions disagree.
    """
    possible: dict[tuple[str, int], tuple[frozenset[str], frozenset[str]]] = {}
    for question in questions:
        key = (question.split, question.image_id)
        colors, shapes = possible.get(key, (COLORS, SHAPES))
        for word, present in _stated(question):
            colors, shapes = _narrow(colors, COLORS, word, present), _narrow(shapes, SHAPES, word, present)
        if not colors or not shapes:
            raise DataError(f"row with index {question.index} contradicts other questions on image {key}: {question}")
        possible[key] = (colors, shapes)
    return {key: _describe(colors, shapes) for key, (colors, shapes) in possible.items()}


def _stated(question: Question) -> list[tuple[str, bool]]:
    """The colour and shape words of a question and its answer, each with whether the image shows it."""
    words = question.text.lower().rstrip("?").split()
    mentioned = [word for word in words if word in COLORS or word in SHAPES]
    if question.answer_type != "yes_no":
        return [(word, True) for word in (*mentioned, question.answer)]
    negated = not _NEGATIONS.isdisjoint(words)
    return [(word, (question.answer == "yes") != negated) for word in mentioned]


def _narrow(candidates: frozenset[str], domain: frozenset[str], word: str, present: bool) -> frozenset[str]:
    if word not in domain:
        return candidates
    return candidates & {word} if present else candidates - {word}


def _describe(colors: frozenset[str], shapes: frozenset[str]) -> str:
    color = next(iter(colors)) if len(colors) == 1 else ""
    shape = next(iter(shapes)) if len(shapes) == 1 else "shape"
    return " ".join(filter(None, ("a", color, shape)))


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
    known = _all_questions(root)
    _check_val_size(val_size, known, asked)
    data = EasyVqa(known, _read_images(root, known))
    files = _select_rows(data, rl_fraction, blind_fraction, val_size, asked, seed)
    target = Path(output_dir)
    card = _data_card(files, rl_fraction, blind_fraction, questions, seed)
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


_CARD = r"""# easy-VQA in verl's schema

Made from the PyPI package `easy-vqa` 1.0 by `verl-ext data easy-vqa`
(rl_fraction {rl_fraction}, blind_fraction {blind_fraction}, questions {questions}, seed {seed}).
Licence of the images and questions: MIT.

Each 64x64 image shows one shape (circle, rectangle, triangle) in one of eight colours.

{table}

* `sft.parquet`: warm start, with a `response` column (`<think> a red circle </think> \boxed{{red}}`); the rows
  without an image keep their response, so that the model learns what can be guessed.
* `train.parquet`: reinforcement learning; shares no image with `sft.parquet`.
* `test.parquet`: a fixed sample of the official test split.
* `test_blind.parquet`: the same questions without the image (`data_source` = `{blind_source}`).

Every prompt is one user message: `{placeholder}`, the question, and the instruction `{instruction}`.
Blind rows lack `{placeholder}` and have an empty `images` list. `extra_info.index` is unique over all four files.
"""


def _data_card(
    files: dict[str, list[Row]], rl_fraction: float, blind_fraction: float, questions: str, seed: int
) -> str:
    header = ("file", "rows", "with image", "images", "yes/no", "colour", "shape")
    table = markdown_table(header, [_card_line(name, rows) for name, rows in files.items()])
    return _CARD.format(
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


_CARD_TYPES = ("yes_no", "color", "shape")
