# SPDX-License-Identifier: Apache-2.0
"""Readers of other people's files: whatever is in them, they give what is there or a DataError, never another error."""

import json
import math
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.data_files import png
from support.synthetic_run import plain_record, write_records

from verl_ext.data.examples import read_example
from verl_ext.data.image_files import ImageFiles
from verl_ext.data.row_check import check_row, is_fetched
from verl_ext.data.tables import read_records
from verl_ext.errors import DataError
from verl_ext.report.metrics_file import read_steps, series
from verl_ext.report.record_files import prompt_ids, read_responses
from verl_ext.report.token_view import latest_records, shaded
from verl_ext.supervision.torch_file import defect

fuzz = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)
broken_lines = st.sampled_from([b"", b"{", b"[" * 5000, b"\xff\xfe", b"null", b'{"step": 1}', b"1e999", b'"\\ud800"'])
entries = st.fixed_dictionaries({"step": values, "data": values}).map(lambda entry: json.dumps(entry).encode())
lines = st.lists(entries | broken_lines | st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=5)


@fuzz
@given(lines)
def test_metrics(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([*content, b""]))
    with suppress(DataError):
        steps = read_steps([path])
        assert [step for step, _ in steps] == sorted({step for step, _ in steps})
        for name in {name for _, data in steps for name in data}:
            assert all(math.isfinite(value) for _, value in series(steps, name))


@pytest.fixture(scope="module")
def record_bytes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    return write_records(folder, 1, [plain_record(images=[png(1)]), plain_record()]).read_bytes()


@fuzz
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), cut=st.booleans())
def test_records(tmp_path, record_bytes, place, change, cut):
    """Cut anywhere, or with any byte changed."""
    at = int(place * len(record_bytes))
    damaged = record_bytes[:at] + (b"" if cut else bytes([record_bytes[at] ^ change]) + record_bytes[at + 1 :])
    path = tmp_path / "step_000001.parquet"
    path.write_bytes(damaged)
    with suppress(DataError):
        assert len(read_responses(path, range(len(prompt_ids(path)))))


@fuzz
@given(tokens=st.lists(st.text(max_size=8), max_size=6), colour=st.booleans(), data=st.data())
def test_tokens_in_a_terminal(tmp_path, tokens, colour, data):
    numbers = data.draw(st.lists(st.floats(0, 2**100, width=32), min_size=len(tokens), max_size=len(tokens)))
    record = {"tokens": tokens, "visual_dependency": numbers}
    shown = shaded(record, colour=colour)
    assert all(c.isprintable() or c == "\x1b" for c in shown)
    assert colour or "\x1b" not in shown
    assert latest_records(tmp_path) == []


@fuzz
@given(
    suffix=st.sampled_from([".jsonl", ".csv", ".parquet"]),
    content=st.lists(broken_lines | st.binary(max_size=60), max_size=5),
)
def test_tables(tmp_path, suffix, content):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(b"\n".join(content))
    with suppress(DataError):
        assert all(isinstance(record.values, dict) for record in read_records(path))


cells = values | st.sampled_from(
    ["[", '["a.png"', "[" * 5000, "a.png", "../a.png", "\0", "x" * 5000, "http://a", b"\x89PNG"]
)


@fuzz
@given(
    st.fixed_dictionaries(
        {"question": cells, "answer": cells}, optional={"images": cells, "choices": cells, "id": cells}
    )
)
def test_rows_of_any_layout(tmp_path, row):
    with suppress(DataError):
        example = read_example(row, ImageFiles(tmp_path))
        assert example.question.count("<image>") == len(example.images)


parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "video"])}, optional={"text": st.text(max_size=9), "image": values}
)
contents = st.text(max_size=30) | st.lists(parts, max_size=3)
messages = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": contents}), max_size=3)


@fuzz
@given(messages, st.lists(values | st.binary(max_size=20), max_size=3), st.lists(values, max_size=1))
def test_rows_of_a_training(rows, images, videos):
    assert is_fetched(rows, images) in (True, False)
    with suppress(DataError):
        check_row(rows, images, videos, name="row")


@fuzz
@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\0\0\0\0"]),
    st.sampled_from([b"", b"PK\x05\x06"]),
)
def test_checkpoints(tmp_path, content, head, tail):
    path = tmp_path / "data.pt"
    path.write_bytes(head + content + tail)
    assert defect(path) in (None, "empty", "cut off", "overwritten by zeros")


def test_the_undamaged_file_is_read(tmp_path, record_bytes):
    path = tmp_path / "step_000001.parquet"
    path.write_bytes(record_bytes)
    assert len(read_responses(path, [0, 1])) == 2
    assert pq.read_table(pa.BufferReader(record_bytes)).num_rows == 2
