# SPDX-License-Identifier: Apache-2.0
"""What is counted of a file, in little memory."""

import tracemalloc

from verl_ext.data.counts import FileCounts
from verl_ext.data.images import Picture

ROW = {"extra_info": {"answer_type": "number"}}


def picture(number):
    return Picture(b"", 600 + number % 20, 400, number.to_bytes(32, "big"), downscaled=False)


def test_sizes_are_counted_and_not_listed():
    counts = FileCounts()
    for number in range(50):
        counts.add(ROW, [picture(number)])
    assert len(counts.sizes) == 20
    assert counts.sizes.total() == len(counts.digests) == 50


def test_an_image_takes_as_little_memory_as_the_documentation_says():
    counts, number = FileCounts(), 20_000
    tracemalloc.start()
    try:
        for position in range(number):
            counts.add(ROW, [picture(position)])
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 200 * number
