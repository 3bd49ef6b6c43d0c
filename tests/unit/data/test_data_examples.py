# SPDX-License-Identifier: Apache-2.0
"""Questions read from rows of several layouts, and the image files that rows may name."""

import json

import pytest
from support.data_files import image, png

from verl_ext.data.examples import read_example
from verl_ext.data.image_files import ImageFiles
from verl_ext.errors import DataError


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(png(1))
    (folder / "deep" / "b.png").write_bytes(png(2))
    (tmp_path / "secret.png").write_bytes(png(3))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    return ImageFiles(folder)


@pytest.mark.parametrize(
    ("cell", "count"),
    [
        ({"images": [image(1), image(2)]}, 2),
        ({"image": image(1)}, 1),
        ({"image": {"bytes": None, "path": "a.png"}}, 1),
        ({"image": "a.png"}, 1),
        ({"images": ["a.png", "deep/b.png"]}, 2),
        ({"images": json.dumps(["a.png", "deep/b.png"])}, 2),
        ({"file_name": "deep/../a.png"}, 1),
        ({"image": png(1)}, 1),
        ({"images": []}, 0),
        ({"images": None}, 0),
        ({"images": ""}, 0),
    ],
    ids=lambda value: str(value)[:40],
)
def test_layouts_of_images(files, cell, count):
    example = read_example({"question": "what?", "answer": "x", **cell}, files)
    assert example.images == (png(1), png(2))[:count]
    assert example.question == "<image>" * count + "what?"


def test_placeholders_stay_where_they_are(files):
    row = {"problem": "Is <image> in <image>?", "question": "no", "images": [image(1), image(2)], "answer": "yes"}
    assert read_example(row, files).question == "Is <image> in <image>?"


@pytest.mark.parametrize("answer", ["12 cm", "B"])
def test_choices_are_lettered(files, answer):
    row = {"question": "How wide?", "choices": ["6 cm", "12 cm"], "answer": answer, "image": "a.png", "qid": 7}
    example = read_example(row, files)
    assert (example.question, example.answer) == ("<image>How wide?\nA. 6 cm\nB. 12 cm", "B")
    assert example.source_id == "7"


def test_every_letter_can_be_a_choice(files):
    row = {"question": "?", "choices": [str(number) for number in range(26)], "answer": "25", "image": "a.png"}
    example = read_example(row, files)
    assert (example.question.splitlines()[-1], example.answer) == ("Z. 25", "Z")


@pytest.mark.parametrize(("answer", "text"), [(5, "5"), (0.5, "0.5"), (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}")])
def test_answers_become_text(files, answer, text):
    assert read_example({"question": "?", "answer": answer, "image": "a.png"}, files).answer == text


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"question": " "}, "problem or question is ' '"),
        ({"question": None}, "problem or question is None"),
        ({"answer": ""}, "answer is ''"),
        ({"answer": True}, "answer is True"),
        ({"answer": float("nan")}, "answer is nan"),
        ({"answer": ["a"]}, "answer is \\['a'\\]"),
        ({"question": "what <video>?"}, "has <video>"),
        ({"question": "<image><image>?"}, "marks 2 images with <image> but the row holds 1"),
        ({"image": None, "question": "<image>?"}, "marks 1 images with <image> but the row holds 0"),
        ({"image": {"bytes": None, "path": None}}, "without bytes or path"),
        ({"image": 3}, "without bytes or path"),
        ({"image": "[a.png"}, "begins like a JSON list"),
        ({"image": "[" * 10**6}, "begins like a JSON list"),
        ({"image": "gone.png"}, "'gone.png' cannot be read: No such file"),
        ({"image": "deep"}, "'deep' cannot be read: Is a directory"),
        ({"image": "a\0.png"}, "cannot be read"),
        ({"image": "../secret.png"}, "lies outside of"),
        ({"image": "link.png"}, "lies outside of"),
        ({"image": "/etc/hostname"}, "lies outside of"),
        ({"image": "https://example.org/a.png"}, "is a URL"),
        ({"image": "file:///etc/hostname"}, "is a URL"),
        ({"image": "data:image/png;base64,AAAA"}, "is a URL"),
        ({"choices": ["1", "2"], "answer": "3"}, "answer '3' is none of the choices, nor a letter from A to B"),
        ({"choices": ["1", "2"], "answer": "C"}, "nor a letter from A to B"),
        ({"choices": [str(n) for n in range(27)], "answer": "26"}, "has 27 choices; there are letters for 26"),
        ({"choices": [str(n) for n in range(27)], "answer": "0"}, "has 27 choices; there are letters for 26"),
    ],
    ids=lambda value: str(value)[:40].replace("\0", "NUL"),
)
def test_unusable_rows_are_refused_with_the_reason(files, changed, reason):
    with pytest.raises(DataError, match=reason):
        read_example({"question": "what?", "answer": "x", "image": "a.png"} | changed, files)


@pytest.mark.parametrize("column", ["question", "answer", "image"])
def test_a_missing_column_is_named(files, column):
    row = {"question": "what?", "answer": "x", "image": "a.png"}
    del row[column]
    with pytest.raises(DataError, match=f"has no column .*{column}.*, but {next(iter(row))}"):
        read_example(row, files)


@pytest.mark.parametrize("name", ["../secret.png", "link.png"])
def test_outside_files_are_read_when_allowed(files, tmp_path, name):
    assert ImageFiles(tmp_path / "data", allow_outside=True).read(name) == png(3)
    assert ImageFiles(tmp_path / "data", allow_outside=True).read(str(tmp_path / "secret.png")) == png(3)
