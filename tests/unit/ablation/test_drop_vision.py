# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from support import tiny

from verl_ext.ablation.drop_vision import PackedSequences, drop_vision

PROMPTS = [
    ([(64, 64)], "what color is the shape?", "<think> a red circle </think> \\boxed{red}"),
    ([(84, 140), (64, 64), (168, 84)], "is there a blue shape?", "<think> a blue rectangle </think> \\boxed{yes}"),
    ([], "does the image contain a circle?", "<think> no image </think> \\boxed{no}"),
    ([(112, 112), (56, 84)], "what shape?", "\\boxed{circle}"),
]


@pytest.fixture(scope="module")
def vlm():
    # "sdpa" computes in float64 throughout; the "eager" attention of transformers takes its softmax in float32.
    return tiny.model(torch.float64, attention="sdpa")


@pytest.fixture(scope="module")
def rows(vlm):
    return [
        tiny.row(sizes, question, response, vlm, seed=7 * i) for i, (sizes, question, response) in enumerate(PROMPTS)
    ]


def pack(rows):
    lengths = torch.tensor([len(row.input_ids) for row in rows])
    return PackedSequences(
        torch.cat([row.input_ids for row in rows]),
        torch.cat([row.position_ids for row in rows], dim=1),
        torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
    )


def dropped(rows, vlm):
    vision_ids = [vlm.config.image_token_id, vlm.config.video_token_id]
    return drop_vision(pack(rows), torch.tensor([row.response_length for row in rows]), vision_ids)


def response_log_probs(logits, ids, length):
    log_probs = logits[0, -length - 1 : -1].log_softmax(-1)
    return log_probs.gather(-1, ids[-length:, None])[:, 0]


def masked_log_probs(row, vlm):
    """The full sequence, images and all, with every attention to an image token blocked."""
    length = len(row.input_ids)
    blocked = torch.ones(length, length, dtype=torch.bool).triu(1) | (row.input_ids == vlm.config.image_token_id)
    # An image token may attend to itself, since a row of the mask without any opening has no softmax.
    blocked &= ~torch.eye(length, dtype=torch.bool)
    mask = torch.zeros(1, 1, length, length, dtype=torch.float64).masked_fill(blocked, -torch.inf)
    output = vlm(
        input_ids=row.input_ids[None], position_ids=row.position_ids[:, None], attention_mask=mask, **row.inputs
    )
    return response_log_probs(output.logits, row.input_ids, row.response_length)


@torch.no_grad()
def test_dropping_vision_tokens_equals_masking_attention_to_them(rows, vlm):
    short = dropped(rows, vlm)
    for index, row in enumerate(rows):
        begin, end = short.offsets[index : index + 2].tolist()
        ids, position_ids = short.input_ids[begin:end], short.position_ids[:, None, begin:end]
        output = vlm(input_ids=ids[None], position_ids=position_ids)
        blind = response_log_probs(output.logits, ids, row.response_length)
        assert (blind - masked_log_probs(row, vlm)).abs().max() <= 1e-6


@torch.no_grad()
def test_the_image_matters_to_the_clean_view(rows, vlm):
    row = rows[1]
    output = vlm(input_ids=row.input_ids[None], position_ids=row.position_ids[:, None], **row.inputs)
    clean = response_log_probs(output.logits, row.input_ids, row.response_length)
    assert (clean - masked_log_probs(row, vlm)).abs().max() > 1e-3


def test_every_other_token_keeps_its_rotary_position(rows, vlm):
    packed, short = pack(rows), dropped(rows, vlm)
    keep = packed.input_ids != vlm.config.image_token_id
    assert torch.equal(short.input_ids, packed.input_ids[keep])
    assert torch.equal(short.position_ids[1:], packed.position_ids[1:, keep])


def test_token_counts_restart_with_each_sequence(rows, vlm):
    short = dropped(rows, vlm)
    for begin, end in zip(short.offsets[:-1], short.offsets[1:], strict=True):
        assert torch.equal(short.position_ids[0, begin:end], torch.arange(end - begin))


def test_vision_tokens_of_a_response_stay(vlm):
    image = vlm.config.image_token_id
    packed = PackedSequences(
        torch.tensor([9, image, image, 10, image, 11]), torch.arange(6).expand(4, 6).clone(), torch.tensor([0, 6])
    )
    assert drop_vision(packed, torch.tensor([2]), [image]).input_ids.tolist() == [9, 10, image, 11]


def test_inputs_are_not_modified(rows, vlm):
    packed = pack(rows)
    before = packed.position_ids.clone()
    drop_vision(packed, torch.tensor([row.response_length for row in rows]), [vlm.config.image_token_id])
    assert torch.equal(packed.position_ids, before)


def test_a_model_without_rotary_rows_is_refused():
    packed = PackedSequences(torch.tensor([1, 2]), torch.arange(2)[None], torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="rotary rows"):
        drop_vision(packed, torch.tensor([1]), [5])
