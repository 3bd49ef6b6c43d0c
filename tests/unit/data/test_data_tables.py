# SPDX-License-Identifier: Apache-2.0
"""Rows of Parquet, JSON lines and CSV files."""

import csv

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data_files import write_lines, write_table

from verl_ext.data.tables import count_records, read_records
from verl_ext.errors import DataError

ROWS = [{"question": "how many?", "answer": "01"}, {"question": 'a "quoted",\nbroken line', "answer": "é"}]


def write(path, rows):
    if path.suffix == ".jsonl":
        write_lines(path, rows)
    elif path.suffix == ".parquet":
        write_table(path, rows, pa.schema([("question", pa.string()), ("answer", pa.string())]))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["question", "answer"])
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_values_come_back_as_they_were(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    write(path, ROWS)
    records = list(read_records(path))
    assert [record.values for record in records] == ROWS
    assert {record.folder for record in records} == {tmp_path}
    assert count_records(path) == 2


@given(answers=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")), max_size=5))
def test_any_text_survives_a_csv(tmp_path_factory, answers):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    write(path, [{"question": "q", "answer": answer} for answer in answers])
    assert [record.values["answer"] for record in read_records(path)] == answers


def test_many_parquet_rows_are_named_by_position(tmp_path):
    path = tmp_path / "t.parquet"
    write(path, [{"question": str(number), "answer": ""} for number in range(100)])
    records = list(read_records(path))
    assert all(record.name == f"{path}: row {record.values['question']}" for record in records)
    assert len(records) == count_records(path) == 100


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.jsonl", '{"a": 1}\n\n{"a": \n', "line 3: is no JSON"),
        ("t.jsonl", "[1]\n", "line 1: holds a list"),
        ("t.jsonl", "[" * 10**6, "line 1: is no JSON"),
        ("t.jsonl", b'{"a": "\xff"}\n', "cannot be read"),
        ("t.csv", "a,b\n1,2\n1\n", "line 3: has not as many cells"),
        ("t.csv", "a,b\n1,2,3\n", "line 2: has not as many cells"),
        ("t.csv", 'a\n"1"2\n', "cannot be read"),
        ("t.parquet", "PAR1 not really", "cannot be read"),
        ("t.txt", "", "a file in .parquet, .jsonl, .csv is needed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_files_that_are_no_tables_are_named(tmp_path, name, text, reason):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=reason) as caught:
        list(read_records(path))
    assert str(path) in str(caught.value)
    with pytest.raises(DataError):
        count_records(path)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_missing_file_is_named(tmp_path, suffix):
    with pytest.raises(DataError, match=f"gone{suffix}: cannot be read"):
        list(read_records(tmp_path / f"gone{suffix}"))
