# SPDX-License-Identifier: Apache-2.0
"""Similarity to the image prototype against the official VGPO. (Pairwise similarity: `test_pepo`.)"""

import json
from pathlib import Path

import numpy as np
import torch

from verl_ext.signals import visual_similarity

DATA = Path(__file__).parent / "data"


def test_vgpo_visual_focus():
    arrays = np.load(DATA / "vgpo_default_16x8.npz", allow_pickle=False)
    golden = {key: torch.from_numpy(arrays[key]) for key in arrays}
    meta = json.loads((DATA / "vgpo_default_16x8.json").read_text())
    mask = golden["in_response_mask"].bool()
    length, columns = golden["in_input_ids"].shape[1], mask.shape[1]
    focus = visual_similarity(
        [golden["in_hidden"]],
        golden["in_input_ids"] == meta["image_token_id"],
        torch.arange(length - columns, length).expand(mask.shape).masked_fill(~mask, -1),
        layers="last",
        pooling="prototype",
    )
    assert focus[mask].min() < 0.0 < focus[mask].max()
    # What is recorded is min-max normalised over the whole micro-batch, padding (0) included.
    raw_weights = (focus - focus.min()) / (focus.max() - focus.min() + 1e-8)
    torch.testing.assert_close(raw_weights, golden["out_raw_weights"], atol=2e-6, rtol=1e-5)
