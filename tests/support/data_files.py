# SPDX-License-Identifier: Apache-2.0
"""Small data sets, written in the layouts that the real ones have."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How the library `datasets` stores an image."""


def png(seed=0, size=(12, 8)):
    """A PNG of noise; different seeds give different pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def image(seed=0):
    """The same as a struct of the library `datasets`."""
    return {"bytes": png(seed), "path": f"{seed}.png"}


def problems(seeds, answer="3"):
    """Rows with `images`, `problem` and `answer`, one image each."""
    return [{"images": [image(seed)], "problem": f"<image>How far is {seed}?", "answer": answer} for seed in seeds]


def write_problems(path, rows):
    """A Parquet file of such rows."""
    schema = pa.schema([("images", pa.list_(IMAGE)), ("problem", pa.string()), ("answer", pa.string())])
    write_table(path, rows, schema)


def write_table(path, rows, schema):
    """A Parquet file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def write_lines(path, rows):
    """A file of JSON lines, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path):
    """The rows of a Parquet file."""
    return pq.read_table(path).to_pylist()
