# SPDX-License-Identifier: Apache-2.0
"""`actor.freeze_vision_tower`, refused before Ray starts where verl's engine could not heed it."""

import pytest
from support.configuration import configuration
from support.tiny import MODEL

from verl_ext.configuration.compose import compose
from verl_ext.configuration.hydra_callback import ValidatePerception
from verl_ext.configuration.validation import validate
from verl_ext.doctor.configuration import perception
from verl_ext.doctor.subject import Subject
from verl_ext.errors import ConfigurationError

FREEZE = "actor_rollout_ref.actor.freeze_vision_tower"
FROZEN = ("+perception=pgpo", f"{FREEZE}=True")
FSDP1 = "actor_rollout_ref.actor.strategy=fsdp"
FSDP = "actor_rollout_ref.actor.fsdp_config"
WRAP = f"{FSDP}.wrap_policy"
OFFLOAD = "actor_rollout_ref.model.enable_activation_offload"

REFUSED = [
    ([f"+{WRAP}.disable=True", FSDP1], f"{WRAP}.disable", "True", f"{FSDP}.use_orig_params=True"),
    ([f"{WRAP}.min_num_params=1000", FSDP1], f"{WRAP}.min_num_params", "1000", "actor.strategy=fsdp2"),
    (
        [f"+{WRAP}.transformer_layer_cls_to_wrap=[Qwen2_5_VLDecoderLayer]", FSDP1],
        f"{WRAP}.transformer_layer_cls_to_wrap",
        "['Qwen2_5_VLDecoderLayer']",
        "leave it out",
    ),
    ([f"{OFFLOAD}=True"], OFFLOAD, "True", "write False"),
]
TAKEN = [
    [],
    [FSDP1],
    [f"{WRAP}.min_num_params=1000"],
    [f"{WRAP}.min_num_params=1000", FSDP1, f"{FSDP}.use_orig_params=True"],
    [f"+{WRAP}.transformer_layer_cls_to_wrap=[A]", FSDP1, "actor_rollout_ref.model.lora_rank=4"],
]


@pytest.mark.parametrize(("overrides", "key", "value", "remedy"), REFUSED, ids=[case[1] for case in REFUSED])
def test_refused(overrides, key, value, remedy):
    with pytest.raises(SystemExit) as stopped:
        ValidatePerception().on_job_start(configuration(*FROZEN, *overrides))
    assert str(stopped.value).startswith(f"verl-ext: {key}={value}: ")
    assert remedy in str(stopped.value)


def test_megatron_is_refused_where_a_run_and_the_doctor_look():
    overrides = ["+perception=pgpo", "model_engine=megatron", f"actor_rollout_ref.model.path={MODEL}"]
    validate(compose(overrides))
    config = compose([*overrides, f"{FREEZE}=True"])
    with pytest.raises(ConfigurationError, match=r"freeze_vision_tower=True: .*Megatron.*write False") as refused:
        validate(config)
    assert refused.value.key == FREEZE
    subject = Subject([*overrides, f"{FREEZE}=True"])
    subject.config = config
    with pytest.raises(ConfigurationError, match="freeze_vision_tower"):
        list(perception(subject))


@pytest.mark.parametrize("overrides", TAKEN, ids=[" ".join(case) or "fsdp2" for case in TAKEN])
def test_taken(overrides):
    validate(configuration(*FROZEN, *overrides))


@pytest.mark.parametrize("overrides", [case[0] for case in REFUSED], ids=[case[1] for case in REFUSED])
def test_without_the_key_nothing_of_it_is_refused(overrides):
    validate(configuration("+perception=pgpo", *overrides))
