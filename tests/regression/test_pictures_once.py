# SPDX-License-Identifier: Apache-2.0
"""A group's pictures lie in TransferQueue once, and the actor's passes find them in every row."""

from dataclasses import replace

import pytest
import torch
import transfer_queue as tq
from support import queue, stored_groups, workers
from support.configuration import configuration
from support.stored_groups import Group, Worker, handle, picture_bytes, store
from support.tiny import picture
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size

from verl_ext.errors import DataError
from verl_ext.passes.ablated_view import INPUT_FIELDS
from verl_ext.passes.row_inputs import row_inputs
from verl_ext.passes.row_pictures import with_pixels
from verl_ext.vocabulary import KEEP_IMAGES, PIXELS_OF

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("process_group")]

RED, BLUE = picture(84, 84, 1), picture(84, 84, 2)
SHAPES = {
    "one": [[RED]] * 5,
    "two": [[RED, picture(56, 112, 3)]] * 4,
    "mixed": [[RED], [BLUE], [RED], [BLUE], [RED]],
    "some": [[RED], [], [RED], []],
    "text": [[]] * 3,
    "alone": [[BLUE]],
}
PASS = {
    "micro_batch_size_per_gpu": 1,
    "compute_loss": False,
    "calculate_entropy": True,
    "temperature": 1.0,
    "perception_step": 3,
}
UPDATE = {
    "calculate_entropy": False,
    "global_batch_size": 4,
    "mini_batch_size": 4,
    "micro_batch_size_per_gpu": 1,
    "epochs": 1,
    "seed": 1,
    "dataloader_kwargs": {"shuffle": False},
    "temperature": 1.0,
    "perception_steps_done": 2,
    "perception_total_steps": 10,
}


@pytest.fixture(scope="module", autouse=True)
def transfer_queue():
    with queue.transfer_queue(configuration("+perception=pgpo")):
        yield


@pytest.fixture(scope="module")
def actor(process_group):
    return workers.build("+perception=pgpo", "perception.ablation.kind=random_patch", "perception.share_prompts=False")


def groups(prefix):
    return [Group(f"{prefix}{name}", pictures) for name, pictures in SHAPES.items()]


@pytest.fixture(scope="module")
def once():
    return store(Worker(), *groups("once"))


@pytest.fixture(scope="module")
def copies():
    """The same rows as verl stores them."""
    return store(Worker("perception.share_prompts=False"), *groups("copies"))


def stored_inputs(meta):
    return row_inputs(
        tq.kv_batch_get(keys=meta.keys, partition_id=queue.PARTITION, select_fields=["multi_modal_inputs"])
    )


def told(meta, fields=None, **settings):
    return replace(meta, fields=fields, extra_info=settings)


def log_probs(actor, meta, **settings):
    """By key, of a clean pass over the rows of `meta`."""
    actor.compute_log_prob(told(meta, **PASS, **settings))
    values = tq.kv_batch_get(keys=meta.keys, partition_id=queue.PARTITION, select_fields=["log_probs"])["log_probs"]
    return dict(zip(meta.keys, [row.clone() for row in values.unbind()], strict=True))


def part(meta, keys):
    return handle([key for key in meta.keys if key in set(keys)])


def test_at_five_responses_a_quarter_of_verls_bytes():
    five = Group("five", [[RED]] * 5)
    ours = store(Worker(), five)
    verls = store(Worker("perception.share_prompts=False"), replace(five, uid="verls"))
    assert picture_bytes(ours) <= 0.25 * picture_bytes(verls)
    pixels = [sum("pixel_values" in row for row in stored_inputs(meta)) for meta in (ours, verls)]
    assert pixels == [1, 5]
    assert not any(PIXELS_OF in row for row in stored_inputs(verls))
    stored_groups.clear(five, replace(five, uid="verls"))


def test_messages_keep_their_pictures_for_a_reward_model_of_the_trainers(once):
    def pictures(meta):
        fields = tq.kv_batch_get(keys=meta.keys, partition_id=queue.PARTITION, select_fields=["raw_prompt"])
        return ["image" in message["content"][0] for (message,) in fields["raw_prompt"]]

    own = Group("reward", [[RED]] * 2)
    assert pictures(store(Worker(reward_workers=None), own)) == [True, True]
    assert pictures(part(once, ["onceone_0_0", "onceone_1_0"])) == [False, False]
    stored_groups.clear(own)


def test_only_equal_pictures_are_merged(once):
    rows = dict(zip(once.keys, stored_inputs(once), strict=True))
    carried = {key for key, row in rows.items() if "pixel_values" in row}
    named = {key: row.get(PIXELS_OF) for key, row in rows.items()}
    assert {key.removeprefix("once") for key in carried} == {
        "one_0_0", "two_0_0", "mixed_0_0", "mixed_1_0", "some_0_0", "alone_0_0",
    }  # fmt: skip
    assert [named[f"oncemixed_{session}_0"] for session in range(5)] == [
        f"oncemixed_{session}_0" for session in (0, 1, 0, 1, 0)
    ]
    assert [named[f"oncesome_{session}_0"] for session in range(4)] == ["oncesome_0_0", None, "oncesome_0_0", None]


def test_rows_of_one_picture_share_its_tensor(once, copies):
    ours, verls = with_pixels(stored_inputs(once)), stored_inputs(copies)
    for mine, theirs in zip(ours, verls, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(mine[name].equal(theirs[name]) for name in mine)
    tensors = [row["pixel_values"] for row in ours if "pixel_values" in row]
    assert len({tensor.data_ptr() for tensor in tensors}) == 6
    assert len({id(tensor) for tensor in tensors}) == 6


def test_the_clean_pass_is_verls(actor, once, copies):
    ours, verls = log_probs(actor, once), log_probs(actor, copies)
    assert all(ours[key].equal(verls[key.replace("once", "copies", 1)]) for key in ours)


def test_rows_without_those_that_carry_for_them(actor, once, copies):
    """Another rank has those; a part of a group, in another order."""
    carried = {key for key, row in zip(once.keys, stored_inputs(once), strict=True) if "pixel_values" in row}
    rest = [key for key in once.keys if key not in carried][::-1]
    ours = log_probs(actor, handle(rest))
    verls = log_probs(actor, handle([key.replace("once", "copies", 1) for key in rest]))
    assert all(ours[key].equal(verls[key.replace("once", "copies", 1)]) for key in rest)


def test_a_step_fetches_its_pictures_in_the_clean_pass_alone(actor, once, copies):
    """The passes behind it give the same with the pictures that the worker has as with those that come along."""
    results = {}
    for kept, meta, uid in ((True, once, "once"), (False, copies, "copies")):
        rows = part(meta, [f"{uid}one_{session}_0" for session in range(3)] + [f"{uid}two_1_0"])
        old = log_probs(actor, rows, **{KEEP_IMAGES: kept})
        lengths = [tag["response_len"] for tag in rows.tags]
        tq.kv_batch_put(
            keys=rows.keys,
            partition_id=queue.PARTITION,
            fields=queue.jagged_fields(
                old_log_probs=[old[key][-n:].clone() for key, n in zip(rows.keys, lengths, strict=True)],
                advantages=[torch.full((n,), 0.5 - at % 2) for at, n in enumerate(lengths)],
            ),
        )
        own = [] if kept else ["multi_modal_inputs"]
        actor.compute_ablated_log_prob(told(rows, [*INPUT_FIELDS, *own], **PASS))
        needed = [*INPUT_FIELDS, "old_log_probs", "advantages", "has_image", "ablated_log_prob", *own]
        before = {name: p.full_tensor().clone() for name, p in actor.actor.engine.module.named_parameters()}
        metrics = actor.update_actor(told(rows, needed, **UPDATE, **({KEEP_IMAGES: False} if kept else {})))["metrics"]
        ablated = tq.kv_batch_get(keys=rows.keys, partition_id=queue.PARTITION, select_fields=["ablated_log_prob"])
        results[uid] = (ablated["ablated_log_prob"].values().clone(), metrics["grad_norm"], metrics["loss"])
        with torch.no_grad():
            for name, parameter in actor.actor.engine.module.named_parameters():
                parameter.to_local().copy_(before[name])
    (ours, *our_update), (verls, *verls_update) = results["once"], results["copies"]
    assert ours.equal(verls)
    assert our_update == verls_update
    with pytest.raises(RuntimeError, match="no pass before it kept them"):
        actor.compute_ablated_log_prob(told(part(once, ["onceone_0_0"]), list(INPUT_FIELDS), **PASS))


def test_every_output_of_a_session(actor):
    several = Group("several", [[RED]] * 2, outputs=3)
    meta = store(Worker(), several)
    rows = stored_inputs(meta)
    assert ["pixel_values" in row for row in rows] == [True, *[False] * 5]
    assert {row[PIXELS_OF] for row in rows} == {"several_0_0"}
    assert len(log_probs(actor, handle(meta.keys[3:]))) == 3
    stored_groups.clear(several)


def test_a_session_that_fails_leaves_the_others_whole(actor):
    """verl goes on with the rest of a group whose first response could not be stored."""
    failed = Group("failed", [[RED]] * 3, failing={0})
    meta = store(Worker(), failed)
    assert tq.kv_list(queue.PARTITION)[queue.PARTITION]["failed"]["status"] == "failure"
    assert [row[PIXELS_OF] for row in stored_inputs(meta)] == ["failed_1_0", "failed_1_0"]
    assert len(log_probs(actor, meta)) == 2
    stored_groups.clear(failed)


@pytest.mark.parametrize("first", ["onceone_0_0", "onceone_1_0"], ids=["carries", "names"])
def test_verls_padding_rows(actor, once, first):
    padded = upsample_batch_to_divisible_size(handle([first, "oncetwo_1_0"]), 4, 0)
    rows = stored_inputs(padded)
    assert rows[2:] == [{}, {}]
    assert len(log_probs(actor, padded)) == 4
    tq.kv_clear(keys=padded.keys[2:], partition_id=queue.PARTITION)


def test_nothing_is_left_of_a_group_that_is_cleared():
    before = tq.kv_list(queue.PARTITION)[queue.PARTITION].keys()
    gone = Group("gone", [[RED], [BLUE]] * 2)
    meta = store(Worker(), gone)
    stored_groups.clear(gone)
    assert tq.kv_list(queue.PARTITION)[queue.PARTITION].keys() == before
    assert set(tq.kv_list()) == {queue.PARTITION}
    with pytest.raises(DataError, match=r"\['gone_0_0'\] are not in TransferQueue.*share_prompts=False"):
        with_pixels([{PIXELS_OF: meta.keys[0]}])


def test_rows_of_a_manager_of_the_users_own(copies):
    """They name nothing, and stay as they are."""
    rows = stored_inputs(copies)
    assert all(mine is theirs for mine, theirs in zip(with_pixels(rows), rows, strict=True))


def test_the_tokens_of_a_row_stay_verls(once, copies):
    fields = ["input_ids", "position_ids", "prompts", "responses", "rm_scores"]
    ours, verls = (
        tq.kv_batch_get(keys=meta.keys, partition_id=queue.PARTITION, select_fields=fields) for meta in (once, copies)
    )
    for name in fields:
        assert all(mine.equal(theirs) for mine, theirs in zip(ours[name].unbind(), verls[name].unbind(), strict=True))
