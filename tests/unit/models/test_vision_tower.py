# SPDX-License-Identifier: Apache-2.0
"""The vision tower, fitted to verl: repairs change no number, and a skipped tower runs nothing."""

import pytest
import torch
from support import family_rows

from verl_ext.models.language_model import family
from verl_ext.models.vision_tower import fit_vision_tower, skip_vision_tower, vision_tower


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v", "glm4v_moe", "glm46v"])
def name(request):
    return request.param


@pytest.fixture
def row(name):
    return family_rows.rows(name, family_rows.load(name))[0]


def features(tower, row):
    output = tower(row.inputs["pixel_values"], grid_thw=row.inputs["image_grid_thw"])
    return getattr(output, "pooler_output", output)


def gradients(name, row, fitted):
    model = family_rows.load(name)
    tower = vision_tower(model)
    if fitted:
        fit_vision_tower(model)
    features(tower, row).square().sum().backward()
    return {key: weight.grad for key, weight in tower.named_parameters()}


def test_features_and_gradients_are_those_of_transformers(name, row):
    plain, fitted = (gradients(name, row, fit) for fit in (False, True))
    assert plain.keys() == fitted.keys()
    for key, gradient in plain.items():
        assert (gradient is None) == (fitted[key] is None), key
        if gradient is not None:
            torch.testing.assert_close(fitted[key], gradient, msg=lambda text, key=key: f"{key}: {text}")


def test_verl_finds_what_it_reads(name, row):
    model = family_rows.load(name)
    fit_vision_tower(model)
    output = vision_tower(model)(row.inputs["pixel_values"], grid_thw=row.inputs["image_grid_thw"])
    assert output.mean().isfinite()
    if family(model).tower.returns_features:
        assert output.shape[-1] == model.config.text_config.hidden_size


def test_names_of_weights_stay(name):
    model = family_rows.load(name)
    before = list(model.state_dict())
    fit_vision_tower(model)
    assert list(model.state_dict()) == before


def test_the_table_comes_back_when_the_tower_fails():
    model = family_rows.load("glm4v")
    fit_vision_tower(model)
    owner = vision_tower(model).get_submodule("embeddings")
    with pytest.raises((TypeError, AttributeError)):
        owner("no tensor")
    assert isinstance(owner.position_embedding, torch.nn.Embedding)


@pytest.mark.parametrize("name", ["glm4v_moe", "glm46v"], indirect=True)
def test_ranks_without_images_run_the_tower_too(name):
    model = family_rows.load(name)
    text = family_rows.rows(name, model)[family_rows.WITHOUT]
    _, wanted = family_rows.logits_of(model, text)
    fit_vision_tower(model)
    seen = []
    vision_tower(model).register_forward_hook(lambda *_: seen.append(1))
    _, found = family_rows.logits_of(model, text)
    assert seen == [1]
    assert torch.equal(found, wanted)


def test_a_skipped_tower_runs_nothing(name, row):
    model = family_rows.load(name)
    fit_vision_tower(model)
    tower = vision_tower(model)
    text = family_rows.rows(name, model)[family_rows.WITHOUT]
    _, wanted = family_rows.logits_of(model, text)
    inner = [module for module in tower.modules() if isinstance(module, torch.nn.Linear)]
    with skip_vision_tower(model):
        handles = [module.register_forward_hook(lambda *_: pytest.fail("the tower ran")) for module in inner]
        _, found = family_rows.logits_of(model, text)
    for handle in handles:
        handle.remove()
    assert torch.equal(found, wanted)
    assert features(tower, row).shape[0] > 1
