# SPDX-License-Identifier: Apache-2.0
"""Which perception methods run with verl's Megatron engine, and what is said about the others."""

import pytest
from hydra import compose, initialize_config_module
from support.tiny import MODEL

from verl_ext.configuration.validation import validate
from verl_ext.errors import ConfigurationError

ACTOR = "actor_rollout_ref.actor.megatron."
STRATEGY = "actor_rollout_ref.actor.strategy"
CONTEXT = f"{ACTOR}context_parallel_size"
TENSOR = f"{ACTOR}tensor_model_parallel_size"
L2 = ("+perception=pepo_g", "perception.pepo.score=l2")


def configuration(*overrides, name="ppo_trainer", engine=("model_engine=megatron",)):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(name, overrides=[*engine, f"actor_rollout_ref.model.path={MODEL}", *overrides])


@pytest.mark.parametrize("group", ["pgpo", "papo_g", "papo_d", "pepo_g", "pepo_d", "vgpo", "vppo", "tor", "dvrp"])
def test_methods_of_sampled_tokens_and_hidden_states_run(group):
    sizes = {"context": 2, "tensor_model": 2, "pipeline_model": 2, "virtual_pipeline_model": 2}
    cut = [f"{ACTOR}{name}_parallel_size={size}" for name, size in sizes.items()]
    config = configuration(f"+perception={group}", *cut)
    validate(config)
    assert config.actor_rollout_ref.actor.strategy == "megatron"


def test_verls_older_name_of_the_configuration_serves_too():
    validate(configuration("+perception=pgpo", name="ppo_megatron_trainer", engine=()))


@pytest.mark.parametrize(
    "settings",
    [
        ("+perception=pepo_g", "actor_rollout_ref.model.use_fused_kernels=True"),
        (*L2, f"{TENSOR}=2", f"{ACTOR}sequence_parallel=False"),
    ],
    ids=["fused kernels", "no sequence parallelism"],
)
def test_hidden_states_are_there(settings):
    validate(configuration(*settings))


@pytest.mark.parametrize(
    ("settings", "key", "value", "remedy"),
    [
        (["+perception=vepo"], STRATEGY, "megatron", "write model_engine=dp, or"),
        (["+perception=pgpo", "perception.pgpo.divergence=kl"], STRATEGY, "megatron", "visual_kl compares"),
        (["+perception=pgpo", f"{ACTOR}dynamic_context_parallel=True"], f"{ACTOR}dynamic_context_parallel", "True", ""),
        (["+perception=pgpo", "perception.share_prompts=True"], "perception.share_prompts", "True", "every row apart"),
        ([*L2, f"{CONTEXT}=2"], CONTEXT, "2", "write 1, or choose score=cosine"),
        ([*L2, f"{TENSOR}=2"], TENSOR, "2", "write 1, or choose score=cosine"),
        (
            ["+perception=pgpo", "perception.response_only_logits=True", "actor_rollout_ref.model.mtp.enable=True"],
            "actor_rollout_ref.model.mtp.enable",
            "True",
            "write False",
        ),
    ],
)
def test_what_does_not_fit_is_refused(settings, key, value, remedy):
    with pytest.raises(ConfigurationError) as caught:
        validate(configuration(*settings))
    assert (caught.value.key, str(caught.value.value)) == (key, value)
    assert remedy in str(caught.value)
