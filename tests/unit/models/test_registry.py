# SPDX-License-Identifier: Apache-2.0
"""Families of this package and of others."""

import json
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from support import families
from support.configuration import configuration

from verl_ext.configuration.validation import validate
from verl_ext.errors import ConfigurationError
from verl_ext.models import available, registry
from verl_ext.models.available import available_families, family_of
from verl_ext.models.family import Family
from verl_ext.models.meaning import meaning
from verl_ext.models.model_files import model_files
from verl_ext.models.registry import register_family

OTHER = Family(model_type="other_vl", name="Other-VL", tower=replace(family_of("qwen3_vl").tower, name="eyes"))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Whatever a test registers goes with it."""
    available_families()
    monkeypatch.setattr(registry, "_families", dict(registry._families))
    yield
    available._load_announced.cache_clear()


def test_every_tiny_model_has_its_family():
    assert set(available_families()) == set(families.TINY)


def test_another_packages_family(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "other_vl", "vision_config": {}}))
    announced = EntryPoint("other", "support.other_family", available.ENTRY_POINT_GROUP)
    monkeypatch.setattr(available, "entry_points", lambda group: EntryPoints([announced]))
    available._load_announced.cache_clear()
    assert available_families()["other_vl"].name == "Other-VL"
    validate(configuration("+perception=pgpo", f"actor_rollout_ref.model.path={tmp_path}"))


def test_a_type_belongs_to_one_family():
    register_family(OTHER)
    register_family(OTHER)
    with pytest.raises(ValueError, match="'other_vl' is Other-VL's already"):
        register_family(replace(OTHER, name="Another"))


def test_what_a_family_means():
    assert meaning(family_of("qwen2_vl")) == "Qwen2-VL (qwen2_vl), on fsdp, fsdp2"
    assert "packed sequences need flash-linear-attention" in meaning(family_of("qwen3_5"))
    assert "LoRA on q_proj, k_proj, v_proj, o_proj alone" in meaning(family_of("glm4v_moe"))


def test_an_unverified_model_is_taken_for_qwen2_5_vl():
    assert family_of("unheard_of") == Family(model_type="unheard_of", name="unheard_of", guessed=True)


class TestFiles:
    """What is read of a model that is here."""

    def test_a_folder(self):
        files = model_files(str(families.path("qwen3_vl")))
        assert files.model_type == "qwen3_vl"
        assert files.has_vision
        assert files.patch_size(14) == 16

    def test_a_folder_without_a_model(self, tmp_path):
        assert model_files(str(tmp_path)) is None

    def test_a_name_that_is_not_in_the_cache(self):
        assert model_files("Nobody/Nothing-7B") is None

    def test_a_name_that_is(self, tmp_path, monkeypatch):
        snapshot = tmp_path / "models--Some--Model" / "snapshots" / "1"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text('{"model_type": "qwen3_vl"}')
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        assert model_files("Some/Model").model_type == "qwen3_vl"


def test_a_family_whose_positions_only_count(tmp_path):
    register_family(replace(OTHER, position_rows=1))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "other_vl", "vision_config": {}}))
    path = f"actor_rollout_ref.model.path={tmp_path}"
    with pytest.raises(ConfigurationError, match=r"ablation.kind=drop_vision: Other-VL counts positions"):
        validate(configuration("+perception=pgpo", path))
    validate(configuration("+perception=pgpo", "perception.ablation.kind=blank", path))
