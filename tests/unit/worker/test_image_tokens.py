# SPDX-License-Identifier: Apache-2.0
"""The worker refuses rows whose tokens and features disagree, and rows with videos."""

import dataclasses

import pytest
import torch
from support import batches, tiny
from verl.utils import tensordict_utils as tu
from verl.workers.config import HFModelConfig

from verl_ext.errors import DataError
from verl_ext.models.facts import model_facts
from verl_ext.worker.image_tokens import check_image_tokens, count_vision_tokens

VIDEO = 7
IMAGES_ONLY = "perception methods work on images only so far"


@pytest.fixture(scope="module")
def facts():
    return model_facts(HFModelConfig(path=str(tiny.MODEL), use_shm=False))


@pytest.fixture
def rows():
    vlm = tiny.model(torch.float32)
    return [*batches.rows(vlm, per_prompt=1), *batches.rows(vlm, images=False, per_prompt=1)]


def changed(row, *, tokens=None, **inputs):
    """`row` with other tokens, {place: id}, and more inputs."""
    ids = row.input_ids.clone()
    for place, token in (tokens or {}).items():
        ids[place] = token
    return dataclasses.replace(row, input_ids=ids, inputs={**row.inputs, **inputs})


def refusal(rows, facts):
    data = batches.batch(rows)
    tu.assign_non_tensor_stack(data, "uid", [f"prompt-{row}" for row in range(len(rows))])
    with pytest.raises(DataError) as caught:
        check_image_tokens(data, facts)
    return str(caught.value)


def test_good_rows(rows, facts):
    data = batches.batch(rows)
    check_image_tokens(data, facts)
    assert count_vision_tokens(data["prompts"], facts) == [9, 21, 9, 6, 0, 0, 0, 0]


def test_absent_videos_are_no_videos(rows, facts):
    nothing = {"pixel_values_videos": None, "video_grid_thw": torch.zeros(0, 3, dtype=torch.long)}
    check_image_tokens(batches.batch([changed(row, **nothing) for row in rows]), facts)


@pytest.mark.parametrize("row", [1, 5], ids=["beside images", "alone"])
@pytest.mark.parametrize(
    "features",
    [
        {"video_grid_thw": torch.tensor([[2, 4, 4]])},
        {"pixel_values_videos": torch.zeros(32, 1176)},
        {"pixel_values_videos": torch.zeros(32, 1176), "video_grid_thw": torch.tensor([[2, 4, 4]])},
    ],
    ids=lambda features: "+".join(features),
)
def test_video_features(rows, facts, row, features):
    rows[row] = changed(rows[row], **features)
    name = f"row {row} (uid prompt-{row})"
    assert refusal(rows, facts) == f"{name}: it has a video (0 video tokens, with features); {IMAGES_ONLY}"


@pytest.mark.parametrize("places", [[1], [-1], [1, 2, -1]], ids=["prompt", "response", "both"])
def test_video_tokens(rows, facts, places):
    rows[6] = changed(rows[6], tokens=dict.fromkeys(places, VIDEO))
    counted = f"{len(places)} video tokens, without features"
    assert refusal(rows, facts) == f"row 6 (uid prompt-6): it has a video ({counted}); {IMAGES_ONLY}"


def test_a_video_whose_tokens_and_features_agree(rows, facts):
    grid = torch.tensor([[1, 4, 4]])
    rows[4] = changed(rows[4], tokens=dict.fromkeys(range(1, 5), VIDEO), video_grid_thw=grid)
    assert refusal(rows, facts).startswith("row 4 (uid prompt-4): it has a video (4 video tokens, with features)")


def test_a_model_without_videos(rows, facts):
    """The token is a word like any other."""
    no_videos = dataclasses.replace(facts, video_token_id=None)
    assert no_videos.vision_token_ids == (facts.image_token_id,)
    rows[6] = changed(rows[6], tokens={1: VIDEO})
    check_image_tokens(batches.batch(rows), no_videos)


def test_images_and_their_tokens_differ(rows, facts):
    rows[1] = changed(rows[1], **rows[0].inputs)
    message = "row 1 (uid prompt-1): its prompt has 21 image tokens but its images give 9 features"
    assert refusal(rows, facts).startswith(message)


def test_an_image_token_in_a_response(rows, facts):
    rows[3] = changed(rows[3], tokens={-2: facts.image_token_id})
    assert refusal(rows, facts).startswith("row 3 (uid prompt-3): its response has 1 image tokens")


def test_a_prompt_of_image_tokens_alone(rows, facts):
    row = rows[2]
    image = row.input_ids == facts.image_token_id
    ids = torch.cat([row.input_ids[image], row.input_ids[-row.response_length :]])
    alone = dataclasses.replace(row, input_ids=ids, position_ids=torch.arange(len(ids)).expand(4, -1))
    message = refusal([*rows[:2], alone], facts)
    assert message.startswith("row 2 (uid prompt-2): its prompt is image tokens alone (9)")
