# SPDX-License-Identifier: Apache-2.0
"""Which models are let in, and what is said of the others: before Ray starts, by the doctor, and in the worker."""

import json
import time

import pytest
from omegaconf import OmegaConf
from support import families, forked_command
from support.configuration import SMALL, configuration

from verl_ext.configuration.section import parse
from verl_ext.configuration.validation import validate
from verl_ext.errors import ConfigurationError
from verl_ext.models.available import available_families, family_of
from verl_ext.models.families.refused import NO_PROCESSOR, REFUSED
from verl_ext.models.model_files import ModelFiles
from verl_ext.worker.admission import admit_model

PATH = "actor_rollout_ref.model.path"
PADDING = "actor_rollout_ref.model.use_remove_padding"
REASONS = {
    "internvl": NO_PROCESSOR,
    "gemma3": NO_PROCESSOR,
    "gemma4": REFUSED["gemma4"],
    "mllama": REFUSED["mllama"],
    "llava_onevision": NO_PROCESSOR,
    "qwen3_5_text": "its config.json names no vision tower",
    "qwen3": "its config.json names no vision tower",
    "llama": "its config.json names no vision tower",
    "unheard_of": "never verified",
}
GRACE = 15.0


@pytest.fixture(scope="module")
def checked():
    """A configuration that is fine, to be changed key by key."""
    return configuration("+perception=pgpo")


def with_(config, **values):
    changed = config.copy()
    for key, value in values.items():
        OmegaConf.update(changed, key.replace("__", "."), value, force_add=True)
    return changed


def model(config, folder):
    return with_(config, actor_rollout_ref__model__path=str(folder))


def folder_of(model_type, root):
    root.mkdir(exist_ok=True)
    more = families.REFUSED.get(model_type, {"vision_config": {"depth": 2}})
    (root / "config.json").write_text(json.dumps({"model_type": model_type, **more}))
    return root


@pytest.mark.parametrize("name", families.TINY)
def test_verified_families_are_let_in(name, checked):
    validate(model(checked, families.path(name)))
    assert family_of(name).model_type == name


@pytest.mark.parametrize("name", REASONS)
def test_others_are_refused_by_type_and_reason(name, checked, tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        validate(model(checked, folder_of(name, tmp_path / name)))
    text = str(caught.value)
    assert text.startswith(f"{PATH}={tmp_path / name} (model_type {name}): ")
    assert REASONS[name] in text
    assert all(family.name in text for family in available_families().values())
    assert "perception.unverified_model=True" in text


@pytest.mark.parametrize("name", REASONS)
def test_the_command_stops_before_ray(name, tmp_path):
    begin = time.monotonic()
    path = folder_of(name, tmp_path / name)
    done = forked_command.run("verl.trainer.main_ppo", *SMALL, "+perception=pgpo", f"{PATH}={path}", folder=tmp_path)
    assert time.monotonic() - begin < GRACE
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("verl-ext: ")]
    assert f"(model_type {name})" in line
    assert REASONS[name] in line
    assert "Traceback" not in done.stderr
    assert "Started a local Ray instance" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["internvl", pytest.param("qwen3", marks=pytest.mark.slow)])
def test_the_doctor_refuses_with_the_same_words(name, tmp_path):
    path = folder_of(name, tmp_path / name)
    done = forked_command.run("verl_ext.cli", "doctor", *SMALL, "+perception=pgpo", f"{PATH}={path}", folder=tmp_path)
    assert done.returncode != 0
    text = " ".join(done.stdout.split())
    assert f"(model_type {name})" in text
    assert REASONS[name] in text
    assert "Traceback" not in done.stdout + done.stderr


def test_who_insists_is_warned(checked, tmp_path, caplog):
    config = with_(model(checked, folder_of("unheard_of", tmp_path / "m")), perception__unverified_model=True)
    validate(config)
    assert "model_type unheard_of" in caplog.text
    assert "unverified_model=True" in caplog.text


def test_a_model_that_is_not_here_is_left_to_the_worker(checked):
    validate(model(checked, "Nobody/Nothing-7B"))


def test_an_engine_that_was_not_verified(checked):
    config = with_(model(checked, families.path("glm4v")), actor_rollout_ref__actor__strategy="megatron")
    with pytest.raises(ConfigurationError, match=r"strategy=megatron: GLM-4.1V was verified on fsdp, fsdp2"):
        validate(config)


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_5_moe"])
def test_packed_linear_attention_needs_its_kernel(name, checked, monkeypatch):
    config = with_(model(checked, families.path(name)), actor_rollout_ref__model__use_remove_padding=True)
    with pytest.raises(ConfigurationError, match=r"use_remove_padding=True.*flash-linear-attention.*write False"):
        validate(config)
    monkeypatch.setattr("verl_ext.configuration.model.find_spec", lambda name: name)
    validate(config)


@pytest.mark.parametrize(("name", "right"), [("qwen3_vl", 16), ("qwen3_5", 16), ("qwen2_5_vl", 14), ("glm4v", 14)])
def test_the_size_of_patches(name, right, checked):
    config = model(checked, families.path(name))
    assert config.data.image_patch_size is None
    validate(with_(config, data__image_patch_size=right))
    for wrong in ({14: 16, 16: 14}[right], right + 0.5, "abc", [right, right]):
        with pytest.raises(ConfigurationError, match=rf"data.image_patch_size=.* patches of {right} pixels"):
            validate(with_(config, data__image_patch_size=wrong))


def test_the_size_of_patches_without_a_processor_is_the_models():
    files = ModelFiles("m", {"model_type": "qwen3_vl", "vision_config": {"patch_size": 12}}, {})
    assert files.patch_size(16) == 12
    assert ModelFiles("m", {"model_type": "qwen3_vl"}, {}).patch_size(16) == 16


SPLIT = "actor_rollout_ref__actor__fsdp_config__ulysses_sequence_parallel_size"


def test_sequences_that_verl_does_not_split(checked):
    with pytest.raises(ConfigurationError, match=r"sequence_parallel_size=2: verl does not split .* GLM-4.6V"):
        validate(with_(model(checked, families.path("glm46v")), **{SPLIT: 2}))


def test_parts_that_only_flash_attention_joins(checked):
    config = with_(model(checked, families.path("qwen3_vl")), **{SPLIT: 2})
    validate(config)
    config = with_(config, trainer__device="cuda")
    with pytest.raises(ConfigurationError, match=r"attn_implementation=sdpa: .*Qwen3-VL.*flash_attention alone"):
        validate(config)
    validate(with_(config, actor_rollout_ref__model__override_config__attn_implementation="flash_attention_2"))


def test_the_cpu_platform_joins_parts_in_one_implementation(checked):
    config = with_(model(checked, families.path("qwen3_vl")), **{SPLIT: 2})
    eager = with_(config, actor_rollout_ref__model__override_config__attn_implementation="eager")
    with pytest.raises(ConfigurationError, match="attn_implementation=eager"):
        validate(eager)


@pytest.mark.parametrize("key", ["ulysses_sequence_parallel_size", "fsdp_config.ulysses_sequence_parallel_size"])
def test_the_reference_is_checked_as_well(key, checked):
    config = with_(model(checked, families.path("glm46v")), **{f"actor_rollout_ref.ref.{key}": 2})
    with pytest.raises(ConfigurationError, match=rf"ref.{key}=2: verl does not split"):
        validate(config)
    config = with_(model(checked, families.path("glm46v")), actor_rollout_ref__ref__strategy="megatron")
    with pytest.raises(ConfigurationError, match=r"ref\.strategy=megatron: GLM-4\.6V"):
        validate(config)


@pytest.mark.parametrize("name", ["glm4v_moe", "glm46v"])
def test_fused_kernels_that_see_no_image(name, checked):
    config = with_(model(checked, families.path(name)), actor_rollout_ref__model__use_fused_kernels=True)
    with pytest.raises(ConfigurationError, match=r"use_fused_kernels=True: .* no images"):
        validate(config)
    validate(with_(config, actor_rollout_ref__model__path=str(families.path("qwen3_vl"))))


def test_adapters_on_a_router(checked):
    config = with_(model(checked, families.path("glm4v_moe")), actor_rollout_ref__model__lora_rank=8)
    with pytest.raises(ConfigurationError, match=r"target_modules=all-linear: .*write \[q_proj,k_proj,v_proj,o_proj\]"):
        validate(config)
    for fine in (["q_proj", "v_proj"], ".*self_attn.*(q_proj|v_proj)"):
        validate(with_(config, actor_rollout_ref__model__target_modules=fine))
    for wrong in (["gate"], ["q_proj", "gate"], None):
        with pytest.raises(ConfigurationError, match="target_modules="):
            validate(with_(config, actor_rollout_ref__model__target_modules=wrong))


BROKEN = {
    "no JSON": b"{",
    "nothing": b"",
    "a list": b"[]",
    "another encoding": '{"model_type": "é"}'.encode("latin-1"),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_files_that_cannot_be_read(name, content, checked, tmp_path):
    folder_of("qwen3_vl", tmp_path / "m")
    (tmp_path / "m" / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"{PATH}={tmp_path / 'm'}: its {name} "):
        validate(model(checked, tmp_path / "m"))


@pytest.mark.parametrize("path", ["/no/such/folder", "./nothing", "~/nothing", "/tmp/"])
def test_paths_that_lead_nowhere(path, checked):
    with pytest.raises(ConfigurationError, match=rf"{PATH}={path}: "):
        validate(model(checked, path))


def test_a_model_without_a_type(checked, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"its config.json has no model_type"):
        validate(model(checked, tmp_path))


def test_the_configuration_that_verl_reads_is_looked_at(checked, tmp_path):
    config = model(checked, families.path("qwen3_vl"))
    other = with_(config, actor_rollout_ref__model__hf_config_path=str(folder_of("gemma3", tmp_path / "m")))
    with pytest.raises(ConfigurationError, match="model_type gemma3"):
        validate(other)


@pytest.mark.parametrize("name", ["internvl", "gemma4", "mllama", "qwen3"])
def test_any_type_can_be_insisted_on(name, checked, tmp_path, caplog):
    validate(with_(model(checked, folder_of(name, tmp_path / "m")), perception__unverified_model=True))
    assert f"model_type {name}" in caplog.text


def test_an_engine_that_is_refused_anyway_is_not_to_be_insisted_on(checked):
    with pytest.raises(ConfigurationError) as caught:
        validate(with_(model(checked, families.path("qwen3_vl")), actor_rollout_ref__actor__strategy="veomni"))
    assert "unverified_model" not in str(caught.value)


class TestWorker:
    """What a worker looks at before it builds anything."""

    def test_a_model_that_was_fetched(self, checked, tmp_path):
        config = model(checked, folder_of("internvl", tmp_path / "m"))
        with pytest.raises(ConfigurationError, match=r"model_type internvl.*no image processor.*Qwen3-VL"):
            admit_model(config.actor_rollout_ref, parse(config.perception))

    def test_a_worker_whose_kernel_for_packing_is_not_used(self, checked, monkeypatch):
        """transformers wants more than the module: a version, and a device."""
        monkeypatch.setattr("verl_ext.configuration.model.find_spec", lambda name: name)
        config = model(checked, families.path("qwen3_5"))
        admit_model(config.actor_rollout_ref, parse(config.perception))
        packed = with_(config, actor_rollout_ref__model__use_remove_padding=True)
        validate(packed)
        with pytest.raises(ConfigurationError, match="flash-linear-attention"):
            admit_model(packed.actor_rollout_ref, parse(config.perception))

    @pytest.mark.parametrize(
        ("name", "key", "value"),
        [
            ("glm46v", "actor.fsdp_config.ulysses_sequence_parallel_size", 2),
            ("glm46v", "model.use_fused_kernels", True),
            ("glm46v", "actor.strategy", "megatron"),
        ],
    )
    def test_all_that_is_checked_before_ray(self, name, key, value, checked):
        config = with_(model(checked, families.path(name)), **{f"actor_rollout_ref.{key}": value})
        with pytest.raises(ConfigurationError, match=key):
            admit_model(config.actor_rollout_ref, parse(config.perception))
