# SPDX-License-Identifier: Apache-2.0
import io
import random

import pytest
from support.broken_images import BROKEN_IMAGES
from support.tiny import picture

from verl_ext.data.row_check import check_row
from verl_ext.errors import DataError

NAME = "row 3 of train.parquet"


def encoded(image_format="PNG", seed=0):
    buffer = io.BytesIO()
    picture(24, 20, seed).save(buffer, image_format)
    return buffer.getvalue()


def user(content):
    return [{"role": "user", "content": content}]


def check(images, content="<image>what is it?", videos=()):
    check_row(user(content), images, list(videos), name=NAME)


def refuse(match, images, content="<image>what is it?", videos=()):
    with pytest.raises(DataError, match=match) as caught:
        check(images, content, videos)
    assert str(caught.value).startswith(f"{NAME}: ")


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded())
    return path


def test_every_form_that_verl_accepts(png):
    for image in (
        {"bytes": encoded()},
        {"bytes": encoded("JPEG"), "path": "name/inside/an/archive.jpg"},
        {"image": str(png)},
        {"image": picture(24, 20, 0)},
        {"image_url": f"file://{png}"},
        picture(24, 20, 0),
        png,
        str(png),
        f"file://{png}",
        "https://example.org/a.png",
        {"image": "data:image/png;base64,AAAA"},
    ):
        check([image])


def test_a_reader_that_stumbles_is_a_data_error():
    refuse("image 0 cannot be read", [{"bytes": BROKEN_IMAGES["NotImplementedError"]}])


def test_text_rows_and_several_images():
    check([], "how much is 2 + 2?")
    check([{"bytes": encoded()}, {"bytes": encoded(seed=1)}], "<image>and<image>")
    check_row([*user("<image>a"), *user("<image>b")], [{"bytes": encoded()}] * 2, [], name=NAME)


@pytest.mark.parametrize(
    ("content", "count", "message"),
    [
        ("<image>", 0, "marks 1 images with <image> but the row holds 0"),
        ("no placeholder", 1, "marks 0 images with <image> but the row holds 1"),
        ("<image><image>", 1, "marks 2 images with <image> but the row holds 1"),
        ("<image>", 3, "marks 1 images with <image> but the row holds 3"),
    ],
)
def test_placeholders_and_images_differ(content, count, message):
    refuse(message, [{"bytes": encoded()}] * count, content)


def test_structured_content_is_not_counted():
    check([], [{"type": "image", "image": "a.png"}, {"type": "text", "text": "what is it?"}])


def test_video():
    message = "it has a video; perception methods work on images only so far"
    refuse(message, [], "<video>", videos=["a.mp4"])
    refuse(message, [], [{"type": "text", "text": "what is it?"}, {"type": "video", "video": "a.mp4"}])


def test_missing_file(tmp_path):
    path = tmp_path / "gone.png"
    for image in (path, str(path), f"file://{path}", {"image": str(path)}):
        refuse(f"image 0 is missing: no file {path}", [image])


@pytest.mark.parametrize(
    "image",
    [
        {},
        None,
        {"bytes": None},
        {"bytes": None, "path": __file__},
        {"path": __file__},
        {"bytes": __file__},
        {"image": None},
        {"image": b"\x89PNG"},
        b"\x89PNG",
        7,
    ],
)
def test_an_image_that_verl_would_not_find(image):
    refuse("image 0 is missing: verl reads a path, a URL, or a dict with one of bytes, image, image_url", [image])


def test_the_image_is_named_by_its_place():
    refuse("image 1 cannot be read", [{"bytes": encoded()}, {"bytes": b"not an image"}], "<image><image>")


def test_truncated_file(tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(encoded()[:200])
    refuse("image 0 cannot be read: .*truncated", [path])
    refuse("image 0 cannot be read", [tmp_path])


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_damaged_bytes_are_readable_or_refused(image_format):
    whole, rng = encoded(image_format), random.Random(0)
    for length in range(0, len(whole) // 2, 7):
        refuse("image 0 cannot be read", [{"bytes": whole[:length]}])
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.randrange(60)] = rng.randrange(256)
        try:
            check([{"bytes": bytes(damaged)}])
        except DataError:
            refused += 1
    assert refused
