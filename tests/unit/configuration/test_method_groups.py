# SPDX-License-Identifier: Apache-2.0
"""Every `+perception=` group: the setting it stands for, and every field of every method on the command line."""

import dataclasses
from importlib.resources import files

import pytest
from omegaconf import OmegaConf
from support.configuration import configuration

from verl_ext.ablation.spec import AblationSpec
from verl_ext.configuration.section import parse
from verl_ext.configuration.validation import validate
from verl_ext.errors import ConfigurationError
from verl_ext.methods.available import available_methods
from verl_ext.methods.dvrp import DVRP
from verl_ext.methods.papo import PAPO
from verl_ext.methods.pepo import PEPO
from verl_ext.methods.pgpo import PGPO
from verl_ext.methods.tor import ToR
from verl_ext.methods.vepo import VEPO
from verl_ext.methods.vgpo import VGPO
from verl_ext.methods.vppo import VPPO

BLIND = {"ablated": AblationSpec("drop_vision")}
PATCHES = {"ablated": AblationSpec("random_patch", probability=0.6, scope="prompt")}
HALF = {"ablated": AblationSpec("random_patch", probability=0.5, scope="response")}
NOISE = {"ablated": AblationSpec("gaussian_noise", sigma=2.0, scope="response")}
NOISED = {"noised": AblationSpec("vp_diffusion", diffusion_step=500, diffusion_anneal=True, scope="prompt")}
GATED = PEPO(gate_alpha=0.05, temperature=1.8)
# Clip low and high, dual clip, averaging, reference KL, group filter.
DAPO = (0.2, 0.28, 3.0, "token-mean", 0, True)
GRPO = (0.2, 0.2, 3.0, "token-mean", 0, False)
GRPO_KL = (0.2, 0.3, 3.0, "token-mean", 0.01, False)
CLIP_HIGHER = (0.2, 0.3, 3.0, "token-mean", 0, False)
SEQ_MEAN = (0.2, 0.2, 1e9, "seq-mean-token-mean", 0.001, False)
DAPO_KL = (0.2, 0.2, 1e9, "token-mean", 0.001, True)

GROUPS = {
    "papo_g": (PAPO(coef=0.02, entropy_coef=0.0), PATCHES, GRPO_KL),
    "papo_g_7b": (PAPO(coef=0.02, entropy_coef=0.05), PATCHES, GRPO_KL),
    "papo_g_no_kl": (PAPO(coef=0.01, entropy_coef=0.03), PATCHES, CLIP_HIGHER),
    "papo_d": (PAPO(coef=0.01, entropy_coef=0.03), PATCHES, DAPO),
    "pgpo": (PGPO(threshold=0.4, boost=2.0), BLIND, DAPO),
    "pepo_g": (GATED, BLIND, SEQ_MEAN),
    "pepo_d": (GATED, BLIND, DAPO_KL),
    "vgpo": (VGPO(compensation=0.3, tail_start=0.5, gate_fraction=0.2, trajectory_low=0.9), BLIND, DAPO),
    "vppo": (VPPO(top_fraction=0.4, floor=0.9, entropy_coef=0.06), HALF, DAPO),
    "vppo_8b": (VPPO(top_fraction=0.4, floor=0.9, entropy_coef=0.12), HALF, DAPO),
    "tor": (ToR(top_p=0.95, entropy_fraction=0.3, visual_fraction=0.3), BLIND, DAPO),
    "vepo": (VEPO(top_fraction=0.2, divergence_share=0.7), NOISE, GRPO),
    "dvrp": (DVRP(necessity_coef=0.01, robustness_coef=0.01), {**PATCHES, **NOISED}, GRPO),
}
RECIPES = {
    "grpo": GRPO,
    "grpo_kl": GRPO_KL,
    "grpo_clip_higher": CLIP_HIGHER,
    "grpo_seq_mean": SEQ_MEAN,
    "dapo": DAPO,
    "dapo_kl": DAPO_KL,
}


def group_of(name):
    """The first group whose method is `name`."""
    return next(group for group, (method, _, _) in GROUPS.items() if method.name == name)


def recipe(config):
    actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
    return (
        actor.clip_ratio_low,
        actor.clip_ratio_high,
        actor.clip_ratio_c,
        actor.loss_agg_mode,
        actor.kl_loss_coef if actor.use_kl_loss else 0,
        algorithm.filter_groups.enable,
    )


@pytest.mark.parametrize("group", GROUPS)
def test_the_released_setting(group):
    method, views, expected = GROUPS[group]
    config = configuration(f"+perception={group}")
    validate(config)
    perception = parse(config.perception)
    assert perception.methods == (method,)
    assert perception.views == views
    assert recipe(config) == expected
    assert not config.algorithm.use_kl_in_reward
    assert config.actor_rollout_ref.actor.kl_loss_type == "low_var_kl"


@pytest.mark.parametrize(("folder", "listed"), [("perception", GROUPS), ("recipe", RECIPES)])
def test_everything_shipped_is_listed_above(folder, listed):
    shipped = {path.name.removesuffix(".yaml") for path in files("verl_ext.config").joinpath(folder).iterdir()}
    assert {name for name in shipped if not name.startswith("_")} == set(listed)


def test_every_method_has_a_group():
    assert {method.name for method, _, _ in GROUPS.values()} == set(available_methods())


@pytest.mark.parametrize("chosen", RECIPES)
def test_recipe_and_method_are_independent(chosen):
    for group in ("papo_g", "pgpo", "pepo_g", "pepo_d"):
        config = configuration(f"+perception={group}", f"recipe={chosen}")
        assert recipe(config) == RECIPES[chosen]
        assert parse(config.perception).methods == (GROUPS[group][0],)


@pytest.mark.parametrize("name", available_methods())
def test_the_yaml_lists_every_field_with_its_default(name):
    written = OmegaConf.to_container(configuration(f"+perception={group_of(name)}").perception[name])
    assert written == dataclasses.asdict(available_methods()[name]())


def fields():
    """(method, field) of everything but the names of views, which must be described."""
    for name, cls in available_methods().items():
        yield from ((name, field) for field in dataclasses.fields(cls) if not field.name.endswith("view"))


def another(field):
    """A legal value that is not the default."""
    if "choices" in field.metadata:
        return field.metadata["choices"][-1]
    if "bounds" in field.metadata:
        low, high = field.metadata["bounds"]
        return next(value for value in (low, high, (low + high) / 2) if value != field.default)
    return not field.default


@pytest.mark.parametrize(("name", "field"), list(fields()), ids=lambda part: getattr(part, "name", part))
def test_every_field_is_read_and_checked(name, field):
    section = {"methods": [name], "views": {"noised": {"kind": "blank"}} if name == "dvrp" else {}}
    value = another(field)
    (method,) = parse({**section, name: {field.name: value}}).methods
    assert getattr(method, field.name) == value
    wrong = ["nonsense"]
    if "bounds" in field.metadata:
        low, high = field.metadata["bounds"]
        wrong += [low - 1e-3 - abs(low), high * 2 + 1, float("nan")]
    for bad in wrong:
        with pytest.raises(ConfigurationError) as caught:
            parse({**section, name: {field.name: bad}})
        assert str(caught.value).startswith(f"perception.{name}.{field.name}={bad}: write ")
