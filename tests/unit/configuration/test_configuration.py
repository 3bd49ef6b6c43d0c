# SPDX-License-Identifier: Apache-2.0
"""The `perception` group on verl's real configuration: defaults, overrides, and every refusal."""

import dataclasses
import pickle

import pytest
from omegaconf import OmegaConf
from support.configuration import configuration
from support.tiny import ROOT

from verl_ext.ablation.spec import AblationSpec
from verl_ext.configuration.estimators import estimator_of
from verl_ext.configuration.hydra_callback import ValidatePerception
from verl_ext.configuration.section import RunOptions, parse
from verl_ext.configuration.typed import build
from verl_ext.configuration.validation import validate
from verl_ext.errors import ConfigurationError
from verl_ext.methods import registry
from verl_ext.methods.base import Method
from verl_ext.methods.papo import PAPO
from verl_ext.methods.pgpo import PGPO
from verl_ext.methods.registry import register_method
from verl_ext.signals.request import AblatedLogProb
from verl_ext.supervision.input_files import check_inputs

PGPO_GROUP, PAPO_GROUP = "+perception=pgpo", "+perception=papo_g"
FUSED = "actor_rollout_ref.model.use_fused_kernels"
SPLITS = [f"actor_rollout_ref.actor.{section}ulysses_sequence_parallel_size" for section in ("", "fsdp_config.")]


@pytest.fixture(scope="module")
def composed():
    return {group: configuration(group) for group in (PGPO_GROUP, PAPO_GROUP)}


def refusal(*overrides):
    """The error, raised where Hydra calls the package: before main_ppo's own first line."""
    with pytest.raises(SystemExit) as stopped:
        ValidatePerception().on_job_start(configuration(*overrides))
    error = stopped.value.__cause__
    assert isinstance(error, ConfigurationError)
    assert str(stopped.value) == f"verl-ext: {error}"
    return error


def says(error, key, value, *remedy):
    """The message reads `key=value: remedy`, with every part of `remedy` in it."""
    message, head = str(error), f"{key}={value}: "
    assert message.startswith(head)
    assert (error.key, str(error.value)) == (key, str(value))
    assert all(part in message[len(head) :] for part in remedy), message


# Defaults


def test_pgpo_is_the_released_setting(composed):
    config = composed[PGPO_GROUP]
    perception = parse(config.perception)
    assert perception.methods == (PGPO(threshold=0.4, boost=2.0, threshold_mode="absolute", conserve_mass=True),)
    assert perception.views == {"ablated": AblationSpec(kind="drop_vision", probability=0.6, scope="prompt")}
    assert perception.signals == {AblatedLogProb()}
    actor = config.actor_rollout_ref.actor
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.28, 3.0)
    assert (actor.use_kl_loss, actor.loss_agg_mode) == (False, "token-mean")


def test_papo_g_is_the_released_setting(composed):
    config = composed[PAPO_GROUP]
    perception = parse(config.perception)
    assert perception.methods == (PAPO(coef=0.02, schedule="fixed", clip=None, top_fraction=None, entropy_coef=0.0),)
    assert perception.views == {"ablated": AblationSpec(kind="random_patch", probability=0.6, scope="prompt")}
    actor = config.actor_rollout_ref.actor
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.3, 3.0)
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (True, 0.01, "low_var_kl")


@pytest.mark.parametrize("group", [PGPO_GROUP, PAPO_GROUP])
def test_what_every_method_sets_in_verl(composed, group):
    config = composed[group]
    assert config.algorithm.adv_estimator == ("pgpo" if group == PGPO_GROUP else "perception")
    assert config.algorithm.use_kl_in_reward is False
    assert config.trainer.v1.trainer_mode == "perception_sync"
    assert config.actor_rollout_ref.rollout.calculate_log_probs is True
    assert config.data.custom_cls.path == "pkg://verl_ext.rollout.dataset"
    assert config.data.custom_cls.name == "CheckedRLHFDataset"
    validate(config)


@pytest.mark.parametrize(
    ("group", "cls", "section", "chosen_by_the_method"),
    [
        (PGPO_GROUP, PGPO, "pgpo", ()),
        (PAPO_GROUP, PAPO, "papo", ()),
        (PGPO_GROUP, RunOptions, None, ("methods",)),
        (PAPO_GROUP, RunOptions, None, ("methods",)),
        (PGPO_GROUP, AblationSpec, "ablation", ("kind",)),
        (PAPO_GROUP, AblationSpec, "ablation", ("kind",)),
    ],
)
def test_yaml_defaults_are_the_dataclass_defaults(composed, group, cls, section, chosen_by_the_method):
    perception = OmegaConf.to_container(composed[group].perception, resolve=True)
    written = perception[section] if section else perception
    for name, default in dataclasses.asdict(cls()).items():
        assert name in written, f"{cls.__name__}.{name} is not in the YAML of {group}"
        if name not in chosen_by_the_method:
            assert written[name] == default, name


def test_a_section_may_be_left_out():
    perception = parse({"methods": ["pgpo"]})
    assert perception.methods == (PGPO(),)
    assert (perception.options, perception.views) == (RunOptions(methods=["pgpo"]), {"ablated": AblationSpec()})


# Overriding

OVERRIDES = [
    (PGPO_GROUP, "pgpo.threshold", 0.5),
    (PGPO_GROUP, "pgpo.boost", 0.25),
    (PGPO_GROUP, "pgpo.threshold_mode", "quantile"),
    (PGPO_GROUP, "pgpo.low_weight_floor", 0.1),
    (PGPO_GROUP, "pgpo.conserve_mass", False),
    (PGPO_GROUP, "pgpo.divergence", "jsd"),
    (PGPO_GROUP, "pgpo.weight_cap", 4.0),
    (PAPO_GROUP, "papo.coef", 0.01),
    (PAPO_GROUP, "papo.schedule", "annealing"),
    (PAPO_GROUP, "papo.end_coef", 0.001),
    (PAPO_GROUP, "papo.anneal_fraction", 0.25),
    (PAPO_GROUP, "papo.clip", 0.2),
    (PAPO_GROUP, "papo.top_fraction", 0.3),
    (PAPO_GROUP, "papo.entropy_coef", 0.03),
    (PGPO_GROUP, "ablation.kind", "random_patch"),
    (PGPO_GROUP, "ablation.probability", 0.9),
    (PGPO_GROUP, "ablation.level", 0.5),
    (PGPO_GROUP, "ablation.sigma", 0.25),
    (PGPO_GROUP, "ablation.diffusion_step", 1000),
    (PGPO_GROUP, "ablation.diffusion_anneal", True),
    (PGPO_GROUP, "ablation.scope", "response"),
    (PGPO_GROUP, "base_estimator", "rloo"),
    (PGPO_GROUP, "seed", 7),
    (PGPO_GROUP, "min_rollout_correlation", 0.5),
    (PGPO_GROUP, "record_every", 10),
    (PGPO_GROUP, "record_rows", 3),
    (PGPO_GROUP, "on_broken", "skip"),
    (PGPO_GROUP, "shuffle_weights", True),
    (PGPO_GROUP, "collapse_window", 40),
    (PGPO_GROUP, "fade_over", 0.5),
    (PGPO_GROUP, "zero_equal_reward_groups", True),
    (PGPO_GROUP, "response_only_logits", True),
    (PGPO_GROUP, "tower_cache_gb", 0.5),
    (PGPO_GROUP, "share_prompts", True),
    (PGPO_GROUP, "unverified_model", True),
]


@pytest.mark.parametrize(("group", "key", "value"), OVERRIDES, ids=[key for _, key, _ in OVERRIDES])
def test_overriding(group, key, value):
    config = configuration(group, f"perception.{key}={value}")
    validate(config)
    perception = parse(config.perception)
    owner, _, name = key.rpartition(".")
    read = {"": perception.options, "ablation": perception.views["ablated"]}.get(owner, perception.methods[0])
    assert getattr(read, name) == value
    assert type(getattr(read, name)) is type(value)
    assert config.algorithm.adv_estimator == ("pgpo" if group == PGPO_GROUP else "perception")


def test_every_option_is_overridden_above():
    tested = {key for _, key, _ in OVERRIDES}
    fields = [("pgpo.", PGPO), ("papo.", PAPO), ("ablation.", AblationSpec), ("", RunOptions)]
    known = {prefix + field.name for prefix, cls in fields for field in dataclasses.fields(cls)}
    # A view other than the main one must be described: see the tests of views.
    assert known - tested == {"methods", "pgpo.view", "papo.view"}


@pytest.mark.parametrize(
    ("overrides", "estimator"),
    [
        ([PGPO_GROUP], "pgpo"),
        ([PGPO_GROUP, "algorithm.adv_estimator=perception"], "perception"),
        ([PGPO_GROUP, "algorithm.adv_estimator=grpo"], "pgpo"),
        ([PGPO_GROUP, "algorithm.adv_estimator=rloo", "perception.base_estimator=rloo"], "pgpo"),
        ([PGPO_GROUP, "perception.methods=[pgpo,papo]"], "pgpo"),
        ([PGPO_GROUP, "perception.methods=[pgpo,pepo]"], "perception"),
        ([PGPO_GROUP, "~perception.pgpo", "perception.methods=[vgpo]"], "vgpo"),
        ([PGPO_GROUP, "~perception.pgpo", "perception.methods=[papo]"], "perception"),
        ([PAPO_GROUP], "perception"),
    ],
)
def test_the_estimator_says_which_methods_act(overrides, estimator):
    config = configuration(*overrides)
    validate(config)
    assert estimator_of(config, parse(config.perception).methods) == estimator


def test_methods_keep_their_order():
    perception = parse({"methods": ["papo", "pgpo"], "papo": {"coef": 0.5}})
    assert perception.methods == (PAPO(coef=0.5), PGPO())


@pytest.mark.parametrize(
    ("recipe", "high", "kl"), [("grpo", 0.2, False), ("dapo", 0.28, False), ("grpo_kl", 0.3, True)]
)
def test_recipe(recipe, high, kl):
    for group in (PGPO_GROUP, PAPO_GROUP):
        config = configuration(group, f"recipe={recipe}")
        validate(config)
        assert (config.actor_rollout_ref.actor.clip_ratio_high, config.actor_rollout_ref.actor.use_kl_loss) == (
            high,
            kl,
        )


@pytest.mark.parametrize("mode", ["perception_sync", "perception_colocate_async"])
def test_every_perception_trainer_is_accepted(mode):
    validate(configuration(PGPO_GROUP, f"trainer.v1.trainer_mode={mode}"))


# Refusals inside the section

NUMBER = "write a value of type float"
SECTION_REFUSALS = [
    (PGPO_GROUP, "perception.methods=[pgop]", "perception.methods", "['pgop']", "papo, pepo, pgpo"),
    (PGPO_GROUP, "perception.methods=[pgpo,pgpo]", "perception.methods", "['pgpo', 'pgpo']", "different names"),
    (PGPO_GROUP, "perception.methods=[]", "perception.methods", "[]", "perception.methods=[pgpo]"),
    (PGPO_GROUP, "perception.methods=[[pgpo]]", "perception.methods", "[['pgpo']]", "different names"),
    (PGPO_GROUP, "perception.methods=pgpo", "perception.methods", "pgpo", "write a value of type list[str]"),
    (PGPO_GROUP, "perception.methods=null", "perception.methods", "None", "write a value of type list[str]"),
    (PGPO_GROUP, "+perception.pgpo.treshold=1", "perception.pgpo.treshold", "1", "did you mean 'threshold'?"),
    (PGPO_GROUP, "+perception.ablation.knd=1", "perception.ablation.knd", "1", "did you mean 'kind'?"),
    (PGPO_GROUP, "+perception.ablatoin=1", "perception.ablatoin", "1", "did you mean 'ablation'?"),
    (PGPO_GROUP, "+perception.pgop.boost=1", "perception.pgop", "{'boost': 1}", "did you mean 'pgpo'?"),
    (PGPO_GROUP, "+perception.pgpo.xyzzy=1", "perception.pgpo.xyzzy", "1", "known keys are boost, conserve_mass"),
    (PGPO_GROUP, "perception.pgpo.threshold=high", "perception.pgpo.threshold", "high", NUMBER),
    (PGPO_GROUP, "perception.pgpo.threshold=true", "perception.pgpo.threshold", "True", NUMBER),
    (PGPO_GROUP, "perception.pgpo.threshold=null", "perception.pgpo.threshold", "None", NUMBER),
    (PGPO_GROUP, "perception.pgpo.conserve_mass=maybe", "perception.pgpo.conserve_mass", "maybe", "of type bool"),
    (PGPO_GROUP, "perception.seed=1.5", "perception.seed", "1.5", "write a value of type int"),
    (PGPO_GROUP, "perception.pgpo=5", "perception.pgpo", "5", "write its keys instead: divergence, view, threshold"),
    (PGPO_GROUP, "perception.ablation=blank", "perception.ablation", "blank", "keys instead: kind, probability"),
    (PGPO_GROUP, "perception.pgpo.threshold=1.1", "perception.pgpo.threshold", "1.1", "between 0 and 1"),
    (PGPO_GROUP, "perception.pgpo.threshold=-0.1", "perception.pgpo.threshold", "-0.1", "between 0 and 1"),
    (PGPO_GROUP, "perception.pgpo.boost=nan", "perception.pgpo.boost", "nan", "between 0 and 1e+06"),
    (PGPO_GROUP, "perception.pgpo.boost=inf", "perception.pgpo.boost", "inf", "between 0 and 1e+06"),
    (PGPO_GROUP, "perception.pgpo.low_weight_floor=2", "perception.pgpo.low_weight_floor", "2", "between 0 and 1"),
    (PGPO_GROUP, "perception.ablation.probability=2", "perception.ablation.probability", "2", "between 0 and 1"),
    (PGPO_GROUP, "perception.seed=-1", "perception.seed", "-1", "between 0 and"),
    (PGPO_GROUP, "perception.record_every=-1", "perception.record_every", "-1", "between 0 and"),
    (PGPO_GROUP, "perception.record_rows=0", "perception.record_rows", "0", "between 1 and"),
    (PGPO_GROUP, "perception.on_broken=ignore", "perception.on_broken", "ignore", "stop, skip"),
    (PGPO_GROUP, "perception.collapse_window=3", "perception.collapse_window", "3", "4 or more"),
    (PGPO_GROUP, "perception.fade_over=0", "perception.fade_over", "0", "between 1e-06 and 1"),
    (PGPO_GROUP, "perception.collapse_window=-1", "perception.collapse_window", "-1", "between 0 and"),
    (PGPO_GROUP, "perception.min_rollout_correlation=2", "perception.min_rollout_correlation", "2", "between -1 and 1"),
    (PAPO_GROUP, "perception.papo.coef=-1", "perception.papo.coef", "-1", "between 0 and 1e+06"),
    (PAPO_GROUP, "perception.papo.end_coef=-1", "perception.papo.end_coef", "-1", "between 0 and 1e+06"),
    (PAPO_GROUP, "perception.papo.anneal_fraction=2", "perception.papo.anneal_fraction", "2", "between 0 and 1"),
    (PAPO_GROUP, "perception.papo.clip=0", "perception.papo.clip", "0", "between 1e-06 and 10"),
    (PAPO_GROUP, "perception.papo.top_fraction=0", "perception.papo.top_fraction", "0", "between 1e-06 and 1"),
    (PAPO_GROUP, "perception.papo.entropy_coef=-1", "perception.papo.entropy_coef", "-1", "between 0 and 1e+06"),
    (PGPO_GROUP, "perception.pgpo.threshold_mode=rank", "perception.pgpo.threshold_mode", "rank", "absolute, quantile"),
    (PGPO_GROUP, "perception.pgpo.weight_cap=0.5", "perception.pgpo.weight_cap", "0.5", "between 1 and 1e+06"),
    (PGPO_GROUP, "perception.pgpo.divergence=k2", "perception.pgpo.divergence", "k2", "k3, kl, jsd"),
    (PAPO_GROUP, "perception.papo.schedule=cosine", "perception.papo.schedule", "cosine", "fixed, annealing"),
    (PGPO_GROUP, "perception.tower_cache_gb=-1", "perception.tower_cache_gb", "-1", "between 0 and 1e+06"),
    (PGPO_GROUP, "perception.ablation.level=1.5", "perception.ablation.level", "1.5", "between 0 and 1"),
    (PGPO_GROUP, "perception.ablation.sigma=0", "perception.ablation.sigma", "0", "between 1e-06 and 1e+06"),
    (PGPO_GROUP, "perception.ablation.sigma=nan", "perception.ablation.sigma", "nan", "between 1e-06 and 1e+06"),
    (
        PGPO_GROUP,
        "perception.ablation.diffusion_step=0",
        "perception.ablation.diffusion_step",
        "0",
        "between 1 and 1000",
    ),
    (PGPO_GROUP, "perception.ablation.diffusion_step=1.5", "perception.ablation.diffusion_step", "1.5", "of type int"),
    (
        PGPO_GROUP,
        "perception.ablation.diffusion_anneal=2.5",
        "perception.ablation.diffusion_anneal",
        "2.5",
        "of type bool",
    ),
    (
        PGPO_GROUP,
        "perception.ablation.kind=blur",
        "perception.ablation.kind",
        "blur",
        "drop_vision, random_patch, blank",
    ),
    (PGPO_GROUP, "perception.ablation.scope=batch", "perception.ablation.scope", "batch", "prompt, response"),
]


@pytest.mark.parametrize(
    ("group", "override", "key", "value", "remedy"), SECTION_REFUSALS, ids=[case[1] for case in SECTION_REFUSALS]
)
def test_bad_value(group, override, key, value, remedy):
    says(refusal(group, override), key, value, remedy)


def test_every_bound_and_choice_is_refused_above():
    tested = {key for _, _, key, _, remedy in SECTION_REFUSALS if "type" not in remedy}
    sections = [("perception.pgpo", PGPO), ("perception.papo", PAPO)]
    sections += [("perception.ablation", AblationSpec), ("perception", RunOptions)]
    constrained = {f"{prefix}.{f.name}" for prefix, cls in sections for f in dataclasses.fields(cls) if f.metadata}
    assert constrained <= tested


def test_a_configured_method_must_act():
    error = refusal(PGPO_GROUP, "perception.methods=[papo]")
    says(error, "perception.pgpo", error.value, "does not act", "perception.methods=[papo,pgpo]")
    assert error.value["threshold"] == 0.4
    validate(configuration(PGPO_GROUP, "perception.methods=[papo,pgpo]"))


def test_build_alone():
    assert build(PGPO, {"threshold": 0.1}, "somewhere") == PGPO(threshold=0.1)
    assert build(PGPO, None, "somewhere") == PGPO()
    with pytest.raises(ConfigurationError, match=r"^somewhere\.boost=-1: write a value between 0 and 1e\+06$"):
        build(PGPO, {"boost": -1}, "somewhere")


def test_the_error_survives_pickling():
    error = refusal(PGPO_GROUP, "perception.seed=-1")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.key, copy.value, copy.remedy) == (str(error), error.key, error.value, error.remedy)


# Refusals in the rest of the configuration

VERL_REFUSALS = [
    ("trainer.use_v1=False", "trainer.use_v1", "False", "write trainer.use_v1=True"),
    ("trainer.v1.trainer_mode=sync", "trainer.v1.trainer_mode", "sync", "write perception_sync"),
    (
        "trainer.v1.trainer_mode=separate_async",
        "trainer.v1.trainer_mode",
        "separate_async",
        "write perception_separate_async",
    ),
    ("trainer.v1.trainer_mode=mine", "trainer.v1.trainer_mode", "mine", "perception_sync or perception_colocate_async"),
    ("perception.base_estimator=gpro", "perception.base_estimator", "gpro", "grpo, "),
    ("perception.base_estimator=pgpo", "perception.base_estimator", "pgpo", "write one of verl's: gae, gdpo"),
    ("algorithm.adv_estimator=rloo", "algorithm.adv_estimator", "rloo", "perception.base_estimator (now grpo)"),
    ("actor_rollout_ref.actor.strategy=veomni", "actor_rollout_ref.actor.strategy", "veomni", "fsdp2, megatron"),
    ("distillation.enabled=True", "distillation.enabled", "True", "write False"),
    (
        "algorithm.rollout_correction.bypass_mode=True",
        "algorithm.rollout_correction.bypass_mode",
        "True",
        "write algorithm.rollout_correction.bypass_mode=False",
    ),
    (
        "actor_rollout_ref.rollout.calculate_log_probs=False",
        "actor_rollout_ref.rollout.calculate_log_probs",
        "False",
        "write actor_rollout_ref.rollout.calculate_log_probs=True, or perception.min_rollout_correlation=null",
    ),
]


@pytest.mark.parametrize(("override", "key", "value", "remedy"), VERL_REFUSALS, ids=[case[0] for case in VERL_REFUSALS])
def test_verl_setting_that_does_not_fit(override, key, value, remedy):
    says(refusal(PGPO_GROUP, override), key, value, remedy)


def test_rollout_log_probs_are_not_needed_without_a_bound():
    off = "actor_rollout_ref.rollout.calculate_log_probs=False"
    config = configuration(PGPO_GROUP, off, "perception.min_rollout_correlation=null")
    validate(config)
    assert parse(config.perception).options.min_rollout_correlation is None


def test_what_only_the_ablated_pass_forbids_is_allowed_without_it():
    bypass = "algorithm.rollout_correction.bypass_mode=True"
    validate(configuration(PAPO_GROUP, "perception.papo.coef=0", bypass))


@pytest.mark.parametrize("group", ["pgpo", "pepo_g"])
def test_sampled_and_hidden_state_signals_need_no_logits(group):
    validate(configuration(f"+perception={group}", f"{FUSED}=True"))


def test_signals_from_logits_go_without_fused_kernels():
    error = refusal(PGPO_GROUP, "perception.pgpo.divergence=jsd", f"{FUSED}=True")
    says(error, FUSED, "True", "visual_jsd", "write False")


def test_response_only_logits_need_a_head():
    validate(configuration(PGPO_GROUP, f"{FUSED}=True"))
    error = refusal(PGPO_GROUP, "perception.response_only_logits=True", f"{FUSED}=True")
    says(error, FUSED, "True", "no head that perception.response_only_logits=True could shorten")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (f"{FUSED}=True", "no logits of chosen tokens"),
        ("perception.response_only_logits=False", "the first token of each response"),
        ("actor_rollout_ref.model.override_config.attn_implementation=eager", "let responses branch off"),
        *((f"{split}=2", "not cut over ranks") for split in SPLITS),
    ],
)
def test_sharing_that_is_insisted_on(override, words):
    key = override.partition("=")[0]
    says(refusal(PGPO_GROUP, "perception.share_prompts=True", override), "perception.share_prompts", "True", words, key)
    validate(configuration(PGPO_GROUP, override))


@pytest.mark.parametrize("split", SPLITS)
def test_split_sequences(split):
    for group in (PGPO_GROUP, "+perception=pepo_g", "+perception=vgpo"):
        validate(configuration(group, f"{split}=2", "perception.response_only_logits=True"))
    validate(configuration(PGPO_GROUP, "perception.pgpo.divergence=jsd", f"{split}=2"))
    l2 = ["+perception=pepo_g", "perception.pepo.score=l2"]
    says(refusal(*l2, f"{split}=2"), split, "2", "visual_similarity_l2_all_pairwise_mean", "write 1")


# Views


def test_views():
    masked = ["+perception.views.masked.kind=random_patch", "+perception.views.masked.probability=0.1"]
    config = configuration(PGPO_GROUP, *masked, "perception.pgpo.view=masked")
    validate(config)
    perception = parse(config.perception)
    assert perception.views == {"ablated": AblationSpec(), "masked": AblationSpec("random_patch", probability=0.1)}
    assert perception.signals == {AblatedLogProb("masked")}


VIEW_REFUSALS = [
    (["perception.pgpo.view=masked"], "perception.views", "['ablated']", "add +perception.views.masked.kind=..."),
    (["+perception.views.x.kind=blank"], "perception.views.x", "blank", "no method compares with it"),
    (["+perception.views.x.kind=blur"], "perception.views.x.kind", "blur", "write one of drop_vision"),
    (["+perception.views.x.knd=blank"], "perception.views.x.knd", "blank", "did you mean 'kind'?"),
    (["perception.views=blank"], "perception.views", "blank", "write views.<name>.kind=..."),
    (["+perception.views.clean.kind=blank"], "perception.views.clean", "{'kind': 'blank'}", "the name is taken"),
    (["+perception.views.ablated.kind=blank"], "perception.views.ablated", "{'kind': 'blank'}", "perception.ablation"),
    (
        ["perception.ablation.kind=random_patch", "perception.ablation.probability=0"],
        "perception.ablation",
        "random_patch",
        "leaves the image as it is",
    ),
]


@pytest.mark.parametrize(
    ("overrides", "key", "value", "remedy"), VIEW_REFUSALS, ids=[case[0][0] for case in VIEW_REFUSALS]
)
def test_a_view_that_does_not_fit(overrides, key, value, remedy):
    says(refusal(PGPO_GROUP, *overrides), key, value, remedy)


# Files that are not there

TRAIN, VAL, PATH = "data.train_files", "data.val_files", "actor_rollout_ref.model.path"
FILES = "a Parquet file, or a list of them"
MISSING_REFUSALS = [
    ([f"{TRAIN}=/no/such/train.parquet"], TRAIN, "/no/such/train.parquet", "no such file"),
    ([f"{TRAIN}=[{ROOT}/README.md,/no/such]"], TRAIN, "/no/such", "`verl-ext data --help`"),
    ([f"{TRAIN}=[]"], TRAIN, "[]", FILES),
    ([f"{TRAIN}=null"], TRAIN, "None", FILES),
    ([f"{TRAIN}=5"], TRAIN, "5", FILES),
    ([f"{VAL}=/no/such/test.parquet"], VAL, "/no/such/test.parquet", "no such file"),
    ([f"{PATH}=/no/such/model"], PATH, "/no/such/model", "no such folder"),
    ([f"{PATH}=null"], PATH, "None", "a model's folder, or its name at Hugging Face"),
    ([f"{PATH}=5"], PATH, "5", "a model's folder, or its name at Hugging Face"),
]


@pytest.mark.parametrize(
    ("overrides", "key", "value", "remedy"), MISSING_REFUSALS, ids=[case[0][0] for case in MISSING_REFUSALS]
)
def test_what_is_read_must_be_there(overrides, key, value, remedy):
    there = [f"{name}={ROOT}/README.md" for name in (TRAIN, VAL)]
    says(refusal(PGPO_GROUP, *there, *overrides), key, value, remedy)


@pytest.mark.parametrize("overrides", [[f"{PATH}=Qwen/Qwen2.5-VL-3B-Instruct"], ["trainer.nnodes=2", f"{TRAIN}=/no"]])
def test_what_is_elsewhere_is_not_looked_for(overrides):
    remote = [f"{TRAIN}=hdfs://somewhere/train.parquet", f"{VAL}={ROOT}/README.md"]
    check_inputs(configuration(PGPO_GROUP, *remote, *overrides))


def test_there_are_enough_of_them():
    cases = {case[1] for case in SECTION_REFUSALS} | {case[0] for case in VERL_REFUSALS}
    count = len(cases) + len(VIEW_REFUSALS) + len(MISSING_REFUSALS)
    assert count >= 60
    assert f"{count} that are wrong in one way each" in (ROOT / "docs" / "reliability.md").read_text()


def test_groups_are_needed_to_compare_rewards_within_them():
    on = "perception.zero_equal_reward_groups=True"
    validate(configuration(PGPO_GROUP, on))
    error = refusal(PGPO_GROUP, on, "perception.base_estimator=gae")
    says(error, "perception.zero_equal_reward_groups", "True", "not relative to the group", "write False")


# Methods of other packages


@pytest.fixture
def needs_hearing():
    """A method of another package, registered while the test runs."""

    @register_method
    @dataclasses.dataclass(frozen=True)
    class NeedsHearing(Method):
        name = "needs_hearing"

        def signals(self):
            return frozenset({"loudness"})

    yield NeedsHearing
    del registry._METHODS["needs_hearing"]


@pytest.mark.usefixtures("needs_hearing")
def test_a_signal_that_nothing_measures():
    error = refusal(PGPO_GROUP, "~perception.pgpo", "perception.methods=[needs_hearing]")
    says(error, "perception.methods", "['loudness']", "needs_hearing needs", "AblatedLogProb")
