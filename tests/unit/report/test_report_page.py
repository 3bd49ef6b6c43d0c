# SPDX-License-Identifier: Apache-2.0
"""What is written into the page: data that cannot act as markup, the security policy, ranges of colours, pictures."""

import base64
import hashlib
import json
import math
import random
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, PngImagePlugin
from support.synthetic_run import Question, picture, plain_record, png, write_metrics, write_records, write_run

from verl_ext.errors import DataError
from verl_ext.report.images import LONGEST_SIDE, data_uri, thumbnail
from verl_ext.report.page import write_page
from verl_ext.report.page_data import blocks
from verl_ext.report.quantities import value_range
from verl_ext.report.runs import load_run

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "\u202eright to left",
    "\x00\x1b[2J\u2028",
    "&lt;b&gt;",
    "{{ 7 * 7 }}",
    "${alert(1)}",
    "emoji \U0001f469\u200d\U0001f680",
]
END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"


class Elements(HTMLParser):
    """Tags with their attributes and the text within, as a parser finds them."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.found.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.found[-1][2] += data


def load(folder, label="run"):
    return load_run(folder, [], label, 200)


def run_of(folder, *rows, label="run", **metrics):
    write_metrics(folder / "m.jsonl", [(1, metrics or {"critic/score/mean": 1.0})])
    write_records(folder, 1, rows)
    return load(folder, label)


def data_of(*runs):
    return {block.id: json.loads(block.json) for block in blocks(runs)}


def page_of(tmp_path, *runs):
    path = tmp_path / "report.html"
    write_page(runs, path)
    return path.read_text(encoding="utf-8")


# Blocks


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_arrive_as_they_were_and_never_as_markup(tmp_path, text):
    row = plain_record(tokens=[text, "b"], prompt=text, ground_truth=text, signals=[(text, [1.0, 2.0])])
    run = run_of(tmp_path, row, label=text, **{text: 1.0})
    found = list(blocks([run]))
    assert all(not set(block.json) & set("<>&") and block.json.isascii() for block in found)
    data = {block.id: json.loads(block.json) for block in found}
    assert data["report"]["runs"][0]["label"] == text
    assert data["report"]["prompts"][0]["text"] == text
    assert list(data["metrics-0"]) == [text]
    record = data["record-0"]
    assert (record["tokens"], record["truth"]) == ([text, "b"], text)
    assert record["values"][text] == [1.0, 2.0]


def test_half_a_surrogate_pair_is_written(tmp_path):
    write_metrics(tmp_path / "m.jsonl", [(1, {"metric \ud800": 1.0})])
    run = replace(load(tmp_path), label="label \udcff")
    assert "\\ud800" in page_of(tmp_path, run)


def test_numbers_without_a_value_are_null(tmp_path):
    values = [math.nan, math.inf, 1.23456789]
    run = run_of(tmp_path, plain_record(tokens=["a", "b", "c"], visual_dependency=values, reward=math.nan))
    data = data_of(run)
    assert data["record-0"]["values"]["visual_dependency"] == [None, None, 1.235]
    assert data["report"]["records"][0]["reward"] is None


def test_the_index_says_what_the_list_needs(tmp_path):
    prompt = "system\nBe brief.\nuser\nWhat\n is it?\nassistant\n"
    data = data_of(run_of(tmp_path, plain_record(prompt=prompt, accuracy=None), plain_record(prompt=prompt)))
    first = {
        "run": 0,
        "step": 1,
        "prompt": "prompt",
        "text": 0,
        "picture": None,
        "reward": 1.0,
        "accuracy": None,
        "tokens": 2,
    }
    assert data["report"]["records"] == [first, first | {"accuracy": 1.0}]
    assert data["report"]["prompts"] == [{"text": prompt, "excerpt": "What is it?"}]


def test_a_picture_is_held_once(tmp_path):
    same, other = picture(("red", "circle", 30), ("blue", "square", 30)), png(Image.new("RGB", (9, 9)))
    data = data_of(run_of(tmp_path, plain_record(images=[same]), plain_record(images=[other, same])))
    assert [data[f"record-{index}"]["images"] for index in (0, 1)] == [[0], [1, 0]]
    assert [entry["picture"] for entry in data["report"]["records"]] == [0, 1]
    assert [name for name in data if name.startswith("image-")] == ["image-0", "image-1"]


def test_runs_with_different_metrics_and_quantities(tmp_path):
    first = run_of(tmp_path / "a", plain_record(), label="a", **{"actor/entropy": 1.0})
    second = run_of(
        tmp_path / "b", plain_record(signals=[("other", [1.0, 1.0])]), label="b", **{"critic/score/mean": 2.0}
    )
    report = data_of(first, second)["report"]
    assert [panel["key"] for panel in report["panels"]] == ["reward", "entropy"]
    assert [quantity["name"] for quantity in report["quantities"]] == [
        "visual_dependency",
        "weight",
        "advantage",
        "entropy",
        "other",
    ]
    assert [[value["panel"] for value in run["overview"]] for run in report["runs"]] == [["entropy"], ["reward"]]


def test_a_run_without_records(tmp_path):
    write_metrics(tmp_path / "m.jsonl", [(1, {"critic/score/mean": 1.0})])
    report = data_of(load(tmp_path))["report"]
    assert report["records"] == report["quantities"] == []
    assert report["costs"] == [{"steps": [], "seconds": {"other": []}}]


# The page


def test_the_page_has_only_its_own_scripts_and_names_no_address(tmp_path):
    rows = [plain_record(tokens=[text, "b"], prompt=text, ground_truth=text) for text in HOSTILE]
    run = run_of(tmp_path, *rows, label=HOSTILE[0])
    text = page_of(tmp_path, run)
    found = Elements(text).found
    scripts = [(attributes, content) for tag, attributes, content in found if tag == "script"]
    policy = next(attributes["content"] for tag, attributes, _ in found if attributes.get("http-equiv"))
    for attributes, content in scripts:
        if attributes.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
    assert {tag for tag, _, _ in found} & {"img", "link", "iframe", "object", "base", "form", "a"} == set()
    assert not any(
        name.startswith("on") or name in {"src", "href"} for _, attributes, _ in found for name in attributes
    )
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:;")
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_every_asset_names_its_licence_and_the_page_begins_as_html(tmp_path):
    assets = [path for path in (files("verl_ext.report") / "assets").iterdir() if path.is_file()]
    assert len(assets) >= 9
    first_lines = {path.name: path.read_text(encoding="utf-8").split("\n")[0] for path in assets}
    assert [name for name, line in first_lines.items() if "SPDX-License-Identifier: Apache-2.0" not in line] == []
    assert page_of(tmp_path, run_of(tmp_path)).startswith("<!doctype html>")


def test_the_title_is_escaped(tmp_path):
    title = page_of(tmp_path, run_of(tmp_path, label="<b>&</b>")).split("<title>")[1].split("</title>")[0]
    assert title == "&lt;b&gt;&amp;&lt;/b&gt;"


def test_the_page_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(DataError, match="step 1, uid uid-1, image 0: not a PNG picture"):
        page_of(tmp_path, run_of(tmp_path, plain_record(images=[b"not a picture"])))
    assert list(tmp_path.glob("report*")) == []


def test_scripts_of_the_page_cannot_end_early():
    from verl_ext.report.page import _scripts

    for script in _scripts():
        assert not re.search("</script|\r", script.text, re.IGNORECASE)


def test_every_response_passes_the_watch(tmp_path):
    run = load(write_run(tmp_path, steps=2, every=1, rows=8))
    seen = []
    list(blocks([run], lambda responses: map(lambda r: seen.append(r) or r, responses)))
    assert seen == run.responses


# Ranges of colours


def test_ranges():
    assert value_range(np.array([]), None) == (0.0, 1.0)
    assert value_range(np.array([np.nan, 0.0]), None) == (0.0, 1.0)
    assert value_range(np.array([2.0, 2.0, 2.0]), None) == (0.0, 2.0)
    assert value_range(np.array([-3.0, -1.0]), None) == pytest.approx((-2.98, -1.02))
    assert value_range(np.array([0.5, 1.0]), 1.0) == pytest.approx((0.505, 1.495))
    assert value_range(np.array([1.0, 1.0]), 1.0) == (0.0, 2.0)


@given(hnp.arrays(np.float32, st.integers(0, 50)), st.sampled_from([None, 0.0, 1.0]))
def test_a_range_is_finite_and_not_empty(values, centre):
    low, high = value_range(values.astype(np.float64), centre)
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low < high
    assert centre is None or low < centre < high


# Pictures


def test_pictures_are_written_anew():
    information = PngImagePlugin.PngInfo()
    information.add_text("Comment", "<script>alert(1)</script>")
    file = BytesIO()
    Image.new("RGBA", (1000, 10), (255, 0, 0, 128)).save(file, "PNG", pnginfo=information, icc_profile=b"profile")
    written = base64.b64decode(data_uri(thumbnail(file.getvalue() + b"<script>", "here")).split(",")[1])
    assert b"script" not in written
    assert b"profile" not in written
    with Image.open(BytesIO(written)) as image:
        assert (image.size, image.mode, image.info) == ((LONGEST_SIDE, 3), "RGB", {})


@pytest.mark.parametrize("cut", [0, 4, 20, 60])
def test_broken_pictures_are_named(cut):
    content = Question(random.Random(0)).image
    with pytest.raises(DataError, match="here: not a PNG picture"):
        thumbnail(content[:cut], "here")


def test_a_picture_that_is_broken_behind_its_pixels_is_named():
    # Neither OSError nor ValueError: what PIL raises for a profile without a name is an IndexError.
    profile = b"\0\0\0\0iCCP" + zlib.crc32(b"iCCP").to_bytes(4, "big")
    content = png(Image.new("RGB", (4, 4))).removesuffix(END_OF_PNG) + profile + END_OF_PNG
    with pytest.raises(DataError, match="here: not a PNG picture"):
        thumbnail(content, "here")


def test_other_formats_are_refused():
    file = BytesIO()
    Image.new("RGB", (4, 4)).save(file, "BMP")
    with pytest.raises(DataError, match="not a PNG"):
        thumbnail(file.getvalue(), "here")
