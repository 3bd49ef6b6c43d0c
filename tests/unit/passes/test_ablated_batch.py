# SPDX-License-Identifier: Apache-2.0
"""Ablated views of verl's micro-batches: who shares a mask or noise, and what a view depends on."""

import pytest
import torch
from support import batches, tiny
from verl.workers.config import HFModelConfig

from verl_ext.ablation import KINDS, AblationSpec, PatchFormat
from verl_ext.models.facts import model_facts
from verl_ext.passes.ablated_batch import Ablation
from verl_ext.passes.row_inputs import row_inputs

RANDOM_KINDS = ["random_patch", "gaussian_noise", "vp_diffusion"]
PIXEL_KINDS = [*RANDOM_KINDS, "blank"]


@pytest.fixture(scope="module")
def vlm():
    return tiny.model(torch.float32)


@pytest.fixture(scope="module")
def rows(vlm):
    """Two responses to each of four prompts, one of which has two images."""
    return batches.rows(vlm)


@pytest.fixture(scope="module")
def facts():
    return model_facts(HFModelConfig(path=str(tiny.MODEL), use_shm=False))


@pytest.fixture
def view(facts):
    """The pixels of each row, ablated; None for a row without images."""

    def view(rows, kind, step=3, seed=0, progress=0.0, **spec):
        ablation = Ablation(AblationSpec(kind=kind, **spec), facts, seed)
        ablated = ablation(batches.batch(rows), step, progress)
        return [inputs.get("pixel_values") for inputs in row_inputs(ablated)]

    return view


def same(first, second):
    return [torch.equal(a, b) for a, b in zip(first, second, strict=True)]


def test_facts_of_the_tiny_model(facts):
    image_processor = tiny.processor().image_processor
    assert facts.patch_format == PatchFormat(
        tuple(image_processor.image_mean), tuple(image_processor.image_std), merge_size=2, temporal_patch_size=2
    )
    assert (facts.image_token_id, facts.video_token_id, facts.vision_token_ids) == (6, 7, (6, 7))


def test_every_kind_has_a_view(facts, rows):
    for kind in KINDS:
        data = batches.batch(rows)
        ablated = Ablation(AblationSpec(kind=kind), facts, 0)(data, 3)
        shorter = len(ablated["input_ids"].values()) < len(data["input_ids"].values())
        assert shorter == (kind == "drop_vision")
        for inputs, row in zip(row_inputs(ablated), rows, strict=True):
            if kind == "drop_vision":
                assert inputs == {}
            elif row.inputs:
                same_pixels = torch.equal(inputs["pixel_values"], row.inputs["pixel_values"])
                assert same_pixels == (kind == "shuffle_text")
                assert torch.equal(inputs["image_grid_thw"], row.inputs["image_grid_thw"])


@pytest.mark.parametrize("kind", PIXEL_KINDS)
def test_the_batch_is_left_as_it_was(view, rows, kind):
    before = [row.inputs["pixel_values"].clone() for row in rows]
    view(rows, kind)
    assert all(same(before, [row.inputs["pixel_values"] for row in rows]))


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_responses_to_a_prompt_share_what_is_drawn(view, rows, kind):
    pixels = view(rows, kind)
    assert all(same(pixels[0::2], pixels[1::2]))


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_each_response_draws_for_itself_if_told_so(view, rows, kind):
    pixels = view(rows, kind, scope="response")
    assert not any(same(pixels[0::2], pixels[1::2]))
    assert all(same(view([rows[0], rows[0]], kind, scope="response"), [pixels[0], pixels[0]]))


@pytest.mark.parametrize("scope", ["prompt", "response"])
@pytest.mark.parametrize("kind", PIXEL_KINDS)
def test_a_view_does_not_depend_on_the_batch(view, rows, kind, scope):
    whole = view(rows, kind, scope=scope)
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    assert all(same(view([rows[i] for i in order], kind, scope=scope), [whole[i] for i in order]))
    alone = [view([row], kind, scope=scope)[0] for row in rows]
    assert all(same(alone, whole))


@pytest.mark.parametrize("other", [{"step": 4}, {"seed": 1}], ids=["step", "seed"])
@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_another_step_or_seed_draws_anew(view, rows, kind, other):
    first = view(rows, kind)
    torch.manual_seed(5)
    assert all(same(view(rows, kind), first))
    assert not any(same(view(rows, kind, **other), first))


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_images_of_a_row_draw_apart(vlm, view, kind):
    """Twice the same picture in one prompt."""
    row = tiny.row([(84, 84), (84, 84)], "what shape?", "\\boxed{circle}", vlm)
    row.inputs["pixel_values"] = row.inputs["pixel_values"][:36].repeat(2, 1)
    first, second = view([row], kind)[0].split(36)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_images(vlm, rows, view, kind):
    text = batches.rows(vlm, images=False)[:1]
    assert view(text, kind) == [None]
    if kind != "drop_vision":
        mixed = view([rows[0], *text, rows[2]], kind)
        assert mixed[1] is None
        assert all(same([mixed[0], mixed[2]], view([rows[0], rows[2]], kind)))


def test_annealed_diffusion_follows_the_run(view, rows):
    clean = [row.inputs["pixel_values"] for row in rows]

    def distance(progress):
        pixels = view(rows, "vp_diffusion", progress=progress, diffusion_anneal=True)
        return sum((a - b).square().mean().item() for a, b in zip(pixels, clean, strict=True))

    assert distance(0.0) > distance(0.5) > distance(1.0) > 0
    assert all(same(view(rows, "vp_diffusion", progress=0.9), view(rows, "vp_diffusion")))


def words_of(facts, rows, step=3, **spec):
    """The ablated sequences, row by row."""
    ablation = Ablation(AblationSpec(kind="shuffle_text", **spec), facts, 0)
    return list(ablation(batches.batch(rows), step)["input_ids"].unbind())


def test_shuffled_words_keep_markers_images_and_the_response(facts, rows):
    assert facts.special_token_ids >= {6, 7, tiny.processor().tokenizer.eos_token_id}
    for before, after in zip(rows, words_of(facts, rows), strict=True):
        ids, prompt = before.input_ids, len(before.input_ids) - before.response_length
        special = torch.isin(ids, torch.tensor(sorted(facts.special_token_ids)))
        assert torch.equal(after[special], ids[special])
        assert torch.equal(after[prompt:], ids[prompt:])
        assert torch.equal(after[:prompt].sort().values, ids[:prompt].sort().values)
        assert not torch.equal(after, ids)


def test_shuffled_words_do_not_depend_on_the_batch_and_change_with_the_step(facts, rows):
    whole = words_of(facts, rows)
    assert all(same(whole, [words_of(facts, [row])[0] for row in rows]))
    assert not any(same(whole, words_of(facts, rows, step=4)))
    prompts = [len(row.input_ids) - row.response_length for row in rows]
    first, second = whole[0][: prompts[0]], whole[1][: prompts[1]]
    assert torch.equal(first, second)
    first, second = (words[: prompts[0]] for words in words_of(facts, rows, scope="response")[:2])
    assert not torch.equal(first, second)
