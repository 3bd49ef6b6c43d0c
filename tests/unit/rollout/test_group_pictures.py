# SPDX-License-Identifier: Apache-2.0
"""Of rows with the same pixels one carries them, whatever order their sessions come in and whichever fails."""

import asyncio

import pytest
import torch
from support.configuration import configuration
from support.tiny import picture

from verl_ext.rollout.group_pictures import GroupPictures, as_stored, sends_pictures_once, without_pictures

GRID = torch.tensor([[1, 2, 2]])


def inputs(value=0.0, *, rows=4, dtype=torch.float32):
    return {"pixel_values": torch.full((rows, 8), value, dtype=dtype), "image_grid_thw": GRID}


def stored(*sessions):
    """What is stored of the rows of each session, one session after another."""

    async def run():
        group = GroupPictures()
        found = []
        for number, rows in enumerate(sessions):
            async with group.stored_by(f"uid_{number}"):
                found.append([as_stored(row) for row in rows])
        return found

    return asyncio.run(run())


def carriers(*sessions):
    """By session, the key that each row names and whether it has pixels."""
    return [[(row.get("perception_pixels_of"), "pixel_values" in row) for row in rows] for rows in stored(*sessions)]


def test_one_row_carries_and_the_others_name_it():
    first, second, third = stored([inputs()], [inputs()], [inputs()])
    assert first[0]["pixel_values"].equal(inputs()["pixel_values"])
    for (row,) in (second, third):
        assert row.keys() == {"image_grid_thw", "perception_pixels_of"}
        assert row["perception_pixels_of"] == first[0]["perception_pixels_of"] == "uid_0_0"
        assert row["image_grid_thw"] is GRID


@pytest.mark.parametrize(
    "other", [inputs(1.0), inputs(rows=8), inputs(dtype=torch.bfloat16), inputs(dtype=torch.int32)], ids=range(4)
)
def test_other_pixels_are_carried_too(other):
    """The last one's bytes are those of the float32 zeros."""
    assert carriers([inputs()], [other], [inputs()], [other]) == [
        [("uid_0_0", True)],
        [("uid_1_0", True)],
        [("uid_0_0", False)],
        [("uid_1_0", False)],
    ]


def test_several_outputs_of_a_session():
    text = {"mm_token_type_ids": torch.zeros(1, 3)}
    assert carriers([inputs(1.0), text, inputs(), inputs(1.0)], [inputs(), {}]) == [
        [("uid_0_0", True), (None, False), ("uid_0_2", True), ("uid_0_0", False)],
        [("uid_0_2", False), (None, False)],
    ]


def test_what_is_stored_elsewhere_is_left_alone():
    row = inputs()
    assert as_stored(row) is row


def test_the_caller_keeps_its_pixels():
    row = inputs()
    stored([inputs()], [row])
    assert row.keys() == {"pixel_values", "image_grid_thw"}


def test_a_failed_session_is_not_named():
    async def store(group, name, error=None):
        async with group.stored_by(name):
            row = as_stored(inputs())
            if error:
                raise error
            return row

    async def run():
        group = GroupPictures()
        with pytest.raises(OSError, match="no queue"):
            await store(group, "uid_0", OSError("no queue"))
        return await store(group, "uid_1")

    assert "pixel_values" in asyncio.run(run())


def test_a_row_is_named_once_it_is_stored():
    """A session that comes while another stores waits for it."""
    events = []

    async def session(group, name, pause):
        async with group.stored_by(name):
            events.append((name, "pixel_values" in as_stored(inputs())))
            await asyncio.sleep(pause)
            events.append((name, "stored"))

    async def run():
        group = GroupPictures()
        await asyncio.gather(session(group, "uid_0", 0.05), session(group, "uid_1", 0), session(group, "uid_2", 0))

    asyncio.run(run())
    carries = {"uid_0": True, "uid_1": False, "uid_2": False}
    assert events == [(name, what) for name, pixels in carries.items() for what in (pixels, "stored")]


def test_groups_know_nothing_of_each_other():
    async def session(uid):
        async with GroupPictures().stored_by(f"{uid}_0"):
            await asyncio.sleep(0)
            return as_stored(inputs())["perception_pixels_of"]

    async def both():
        return await asyncio.gather(session("a"), session("b"))

    assert asyncio.run(both()) == ["a_0_0", "b_0_0"]


SAMPLER = ["trainer.v1.sampler.custom_sampler.path=mine.py", "trainer.v1.sampler.custom_sampler.name=Mine"]


@pytest.mark.parametrize(
    ("overrides", "once"),
    [
        ([], True),
        (["perception.share_prompts=True"], True),
        (["perception.share_prompts=False"], False),
        (["skip.rollout_tq.enable=True"], False),
        (SAMPLER, False),
        (SAMPLER[:1], True),
    ],
)
def test_when_rows_may_name_each_other(overrides, once):
    assert sends_pictures_once(configuration("+perception=pgpo", *overrides)) == once


def test_messages_keep_their_words():
    image = {"type": "image", "image": picture(28, 28, 0), "bytes": b"png"}
    words = {"type": "text", "text": "what is it?"}
    system = {"role": "system", "content": "look"}
    messages = [system, {"role": "user", "content": [image, words, "as it is"]}]
    assert without_pictures(messages) == [system, {"role": "user", "content": [{"type": "image"}, words, "as it is"]}]
    assert messages[1]["content"][0] is image
    assert without_pictures("a prompt") == "a prompt"
    assert without_pictures([{"role": "assistant"}, "other"]) == [{"role": "assistant"}, "other"]
