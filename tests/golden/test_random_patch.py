# SPDX-License-Identifier: Apache-2.0
"""Patch masking against images masked by the official code."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verl_ext.ablation import random_patch

DATA = Path(__file__).parent / "data"
ARRAYS = np.load(DATA / "papo_patch.npz", allow_pickle=False)
META = json.loads((DATA / "papo_patch.json").read_text())


def mask(image):
    return random_patch(
        image,
        patch_size=META["patch_size"],
        probability=META["black_prob"],
        generator=np.random.RandomState(123),
    )


@pytest.mark.parametrize("name", ["rgb", "exact", "tiny"])
def test_array(name):
    assert np.array_equal(mask(ARRAYS[f"in_{name}"]), ARRAYS[f"out_{name}"])


@pytest.mark.parametrize("name", ["rgb", "exact", "tiny"])
def test_pil_rgb(name):
    result = mask(Image.fromarray(ARRAYS[f"in_{name}"]))
    assert result.mode == "RGB"
    assert np.array_equal(np.asarray(result), ARRAYS[f"out_{name}"])


@pytest.mark.parametrize("name", ["gray", "rgba"])
def test_other_modes_equal_the_official_result_seen_as_rgb(name):
    result = mask(Image.fromarray(ARRAYS[f"in_{name}"]))
    expected = Image.fromarray(ARRAYS[f"out_{name}"]).convert("RGB")
    assert result.mode == "RGB"
    assert np.array_equal(np.asarray(result), np.asarray(expected))
