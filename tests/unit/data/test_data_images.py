# SPDX-License-Identifier: Apache-2.0
"""Images of data set rows: every kind of file that Pillow writes, and files that are none."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.broken_images import BROKEN_IMAGES

from verl_ext.data.images import load_picture
from verl_ext.errors import DataError


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(picture):
    image = Image.open(io.BytesIO(picture.data))
    assert image.size == (picture.width, picture.height)
    return image


def noise(width=12, height=8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_upright_rgb_file_is_kept_to_the_byte(kind):
    data = encoded(noise(), kind)
    assert load_picture(data).data == data


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "GIF", "TIFF"])
def test_other_formats_become_png(kind):
    image = decoded(load_picture(encoded(noise().quantize(8) if kind == "GIF" else noise(), kind)))
    assert (image.format, image.mode) == ("PNG", "RGB")


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "RGBA"])
def test_other_modes_become_rgb(mode):
    source = noise().convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = decoded(load_picture(encoded(source, kind)))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", source.size)
    if mode in ("L", "P"):
        assert np.array_equal(np.asarray(image), np.asarray(source.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_parts_are_white(mode):
    source = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    source.putpixel((1, 0), (0, 0, 0, 0))
    if mode == "P":
        data = encoded(Image.new("P", (2, 1), 0), transparency=0)
        expected = [(255, 255, 255)] * 2
    else:
        data, expected = encoded(source.convert(mode)), [(0, 0, 0), (255, 255, 255)]
    image = decoded(load_picture(data))
    assert [image.getpixel((x, 0)) for x in range(2)] == expected


def test_half_transparent_pixels_are_blended_with_white():
    image = decoded(load_picture(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 51)))))
    assert image.getpixel((0, 0)) == (204, 204, 204)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("orientation", "turned"), [(3, False), (6, True), (8, True)])
def test_the_exif_orientation_is_applied(kind, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = Image.new("RGB", (40, 20), "white")
    source.paste("black", (0, 0, 8, 8))
    picture = load_picture(encoded(source, kind, exif=exif))
    assert (picture.width, picture.height) == ((20, 40) if turned else (40, 20))
    image = decoded(picture)
    corners = {
        (x, y): image.getpixel((x * (image.width - 1), y * (image.height - 1)))[0] for x in (0, 1) for y in (0, 1)
    }
    dark = {3: (1, 1), 6: (1, 0), 8: (0, 1)}[orientation]
    assert [corner for corner, value in corners.items() if value < 100] == [dark]
    assert image.getexif().get(0x0112, 1) == 1


def test_equal_pixels_have_equal_digests_whatever_the_format():
    source = noise()
    digests = {load_picture(encoded(source, kind)).digest for kind in ("PNG", "BMP", "TIFF")}
    assert len(digests) == 1
    assert load_picture(encoded(noise(seed=1))).digest not in digests
    assert (
        load_picture(encoded(Image.new("RGB", (2, 3)))).digest != load_picture(encoded(Image.new("RGB", (3, 2)))).digest
    )


@given(width=st.integers(1, 90), height=st.integers(1, 90), most=st.integers(1, 900))
def test_large_images_are_scaled_down(width, height, most):
    data = encoded(Image.new("RGB", (width, height), "red"))
    picture = load_picture(data, most)
    assert picture.downscaled == (width * height > most)
    assert picture.width * picture.height <= max(most, 1)
    assert picture.digest == load_picture(data).digest
    if not picture.downscaled:
        assert picture.data == data
    elif min(picture.width, picture.height) > 9:
        assert picture.width / picture.height == pytest.approx(width / height, rel=0.25)
    assert decoded(picture).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be read"),
        (b"<html>not found</html>", "cannot be read"),
        (encoded(noise())[:60], "cannot be read"),
        (encoded(noise(), "JPEG")[:-200], "cannot be read"),
        (encoded(Image.new("I;16", (4, 4))), "mode I;16"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "mode F"),
        (encoded(noise(), "GIF", save_all=True, append_images=[noise(seed=1)]), "holds 2 frames"),
    ],
    ids=["empty", "no image", "cut PNG", "cut JPEG", "16 bits", "floats", "animation"],
)
def test_what_is_no_picture_is_refused(data, reason):
    with pytest.raises(DataError, match=reason):
        load_picture(data)


@pytest.mark.parametrize(("error", "data"), BROKEN_IMAGES.items(), ids=BROKEN_IMAGES)
def test_a_reader_that_stumbles_is_a_data_error(error, data):
    with pytest.raises(DataError, match="cannot be read as an image") as caught:
        load_picture(data)
    assert type(caught.value.__cause__).__name__ == error


@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]))
def test_a_damaged_file_gives_a_picture_or_a_data_error(data, kind):
    good = bytearray(encoded(noise(), kind))
    for position in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=6)):
        good[position] = data.draw(st.integers(0, 255))
    try:
        picture = load_picture(bytes(good), 1000)
    except DataError:
        return
    assert decoded(picture).mode == "RGB"
