# SPDX-License-Identifier: Apache-2.0
"""The questions of the study: half are yes/no, which wording alone often answers, and half ask for a colour."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ext.data.easy_vqa import write_easy_vqa

KINDS = ("yes_no", "color")
SEED = 0
WORDING = "wording.json"
Row = dict[str, Any]


def write_task(folder: Path, train: int, test: int) -> None:
    """Write `train.parquet`, `test.parquet`, `test_blind.parquet` and `wording.json`, the same ones every time.

    Args:
        folder: made if it is missing.
        train, test: rows of each kind of question.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[pa.Table]] = defaultdict(list)
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as scratch:
            write_easy_vqa(scratch, questions=kind, val_size=test, seed=SEED)
            for name in ("train", "test", "test_blind"):
                files[name].append(_some(pq.read_table(Path(scratch) / f"{name}.parquet"), name, train))
            # Questions of both kinds, whatever the others are.
            known = read_rows(Path(scratch) / "sft.parquet")
    for name, tables in files.items():
        pq.write_table(pa.concat_tables(tables), folder / f"{name}.parquet")
    share = wording_alone(known, read_rows(folder / "test.parquet"))
    (folder / WORDING).write_text(json.dumps(share))


def _some(table: pa.Table, name: str, count: int) -> pa.Table:
    """All of a test file; of the train file, a few rows."""
    if name != "train":
        return table
    return table.take(sorted(random.Random(SEED).sample(range(len(table)), count)))


def read_rows(path: Path) -> list[Row]:
    """The rows of one of the files."""
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def wording_alone(known: Iterable[Row], test: Iterable[Row]) -> dict[str, float]:
    """Accuracy by kind of who knows each wording's most frequent answer among `known`, and nothing of the image."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in known:
        seen[row["extra_info"]["question"]][_answer(row)] += 1
        seen[row["extra_info"]["answer_type"]][_answer(row)] += 1
    right: dict[str, list[bool]] = defaultdict(list)
    for row in test:
        kind = row["extra_info"]["answer_type"]
        guesses = seen.get(row["extra_info"]["question"], seen[kind])
        right[kind].append(guesses.most_common(1)[0][0] == _answer(row))
    return {kind: sum(values) / len(values) for kind, values in sorted(right.items())}


def _answer(row: Row) -> str:
    return str(row["reward_model"]["ground_truth"])
