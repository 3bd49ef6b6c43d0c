# SPDX-License-Identifier: Apache-2.0
"""The estimators of verl's registry: in a training step, called directly, and where nobody has measured."""

import numpy as np
import pytest
import torch
from support import queue
from support.configuration import configuration
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, get_adv_estimator_fn
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ext.configuration.estimators import OF_ONE_METHOD, REGISTERED, weights_gae
from verl_ext.configuration.section import parse
from verl_ext.errors import ConfigurationError
from verl_ext.methods import pgpo
from verl_ext.methods.available import available_methods
from verl_ext.methods.base import Method
from verl_ext.methods.pgpo import PGPO
from verl_ext.methods.tor import ToR
from verl_ext.signals import sampled_k3
from verl_ext.trainer.trainers import PerceptionTrainerSync

LENGTHS = [7, 5, 9, 3, 1, 6, 8, 4]
FOCUS = {"visual_similarity_cosine_last_prototype": torch.linspace(0, 1, 24).view(4, 6) ** 2}


@pytest.fixture(scope="module", autouse=True)
def transfer_queue():
    with queue.transfer_queue(configuration("+perception=pgpo")):
        yield


def computed(cls, rows, *overrides, **put):
    made = object.__new__(cls)
    made.config = configuration(*overrides)
    made.global_steps, made.total_training_steps = 3, 5
    made._warned_without_images = False
    if "perception" in made.config:
        made.perception = parse(made.config.perception)
    meta = queue.put(rows, **put)
    try:
        made._compute_advantage(meta, metrics={})
        return queue.advantages(meta)
    finally:
        queue.clear(meta)


def weights(row):
    dependency = sampled_k3(row["old_log_probs"], row["ablated_log_prob"])[None]
    return pgpo.token_weights(dependency, torch.ones_like(dependency))[0]


def test_every_method_that_weights_by_itself_is_registered():
    own = {
        name
        for name, cls in available_methods().items()
        if cls.__module__.startswith("verl_ext.") and cls.advantage_weights is not Method.advantage_weights
    }
    assert set(OF_ONE_METHOD) == own
    for name in REGISTERED:
        assert get_adv_estimator_fn(name).__module__ == "verl_ext.trainer.estimators"


@pytest.mark.parametrize("group", ["papo_g", "pgpo"])
@pytest.mark.parametrize("estimator", ["grpo", "reinforce_plus_plus"])
def test_several_outputs_of_a_rollout_are_handled_as_verl_does(group, estimator):
    rows = queue.recorded_rows(LENGTHS, per_prompt=4)
    # Rewards that differ between the outputs of a rollout, of which `grpo` reads the last.
    for index, row in enumerate(rows):
        row["rm_scores"][-1] = float(index % 3)
    expected = computed(PPOTrainerSync, rows, f"algorithm.adv_estimator={estimator}", outputs=2)
    base = f"perception.base_estimator={estimator}"
    found = computed(PerceptionTrainerSync, rows, f"+perception={group}", base, outputs=2, padding=2)
    for (key, advantage), row in zip(expected.items(), rows, strict=True):
        wanted = advantage * weights(row) if group == "pgpo" else advantage
        torch.testing.assert_close(found[key], wanted, rtol=1e-6, atol=0)
    of_one_each = computed(PPOTrainerSync, rows, f"algorithm.adv_estimator={estimator}")
    same = all(torch.equal(a, b) for a, b in zip(expected.values(), of_one_each.values(), strict=True))
    assert same == (estimator != "grpo")


def test_a_composition_multiplies_the_weights_of_all():
    rows = queue.recorded_rows(LENGTHS, fields=["entropy_top_p_0.95"])
    tor, both = (
        computed(PerceptionTrainerSync, rows, "+perception=tor", *more)
        for more in ([], ["perception.methods=[tor,pgpo]", "perception.ablation.kind=drop_vision"])
    )
    for (key, advantage), row in zip(tor.items(), rows, strict=True):
        torch.testing.assert_close(both[key], advantage * weights(row))


def test_the_mask_that_verl_corrects_is_the_one_that_counts():
    """Rejection sampling takes tokens out before advantages are computed."""
    rows = queue.recorded_rows(LENGTHS)
    rows[2]["rollout_log_probs"][4] -= 9.0
    correction = [
        "algorithm.rollout_correction.rollout_is=null",
        "algorithm.rollout_correction.rollout_rs=token_k1",
        "algorithm.rollout_correction.rollout_rs_threshold=0.5_2.0",
    ]
    found = list(computed(PerceptionTrainerSync, rows, "+perception=pgpo", *correction).values())
    expected = list(computed(PPOTrainerSync, rows, "algorithm.adv_estimator=grpo", *correction).values())
    assert expected[2][4] == 0
    kept = torch.ones(LENGTHS[2]).index_fill(0, torch.tensor([4]), 0.0)[None]
    dependency = sampled_k3(rows[2]["old_log_probs"], rows[2]["ablated_log_prob"])[None]
    torch.testing.assert_close(found[2], expected[2] * pgpo.token_weights(dependency, kept)[0])


# Called directly


def batch():
    generator = torch.Generator().manual_seed(3)
    mask = torch.ones(4, 6)
    mask[1, 4:] = 0
    rewards = torch.zeros(4, 6)
    rewards[:, 3] = torch.tensor([1.0, 0.0, 0.5, 1.0])
    old = -torch.rand(4, 6, generator=generator)
    ablated = old - torch.rand(4, 6, generator=generator)
    return {
        "token_level_rewards": rewards,
        "response_mask": mask,
        "index": np.array(["a", "a", "b", "b"], dtype=object),
    }, {"old_log_prob": old, "ablated_log_prob": ablated}


@pytest.mark.parametrize("base", ["grpo", "rloo", "reinforce_plus_plus"])
def test_it_is_a_plain_function_of_its_signals(base):
    given, signals = batch()
    algorithm = configuration("algorithm.adv_estimator=grpo").algorithm
    expected, returns = ADV_ESTIMATOR_REGISTRY[base](**given, config=algorithm)
    method = PGPO(boost=1.0)
    found = get_adv_estimator_fn("pgpo")(**given, config=algorithm, methods=[method], base_estimator=base, **signals)
    dependency = sampled_k3(signals["old_log_prob"], signals["ablated_log_prob"])
    assert torch.equal(found[0], expected * pgpo.token_weights(dependency, given["response_mask"], boost=1.0))
    assert torch.equal(found[1], returns)


def test_by_default_its_method_has_the_papers_parameters_and_every_row_an_image():
    given, signals = batch()
    estimate = get_adv_estimator_fn("pgpo")
    plain = estimate(**given, **signals)[0]
    assert torch.equal(plain, estimate(**given, methods=[PGPO()], has_image=torch.ones(4), **signals)[0])
    expected, _ = ADV_ESTIMATOR_REGISTRY["grpo"](**given)
    blind = estimate(**given, has_image=torch.tensor([False, True, True, True]), **signals)[0]
    assert torch.equal(blind[0], expected[0])
    assert torch.equal(blind[1:], plain[1:])


@pytest.mark.parametrize("index", [["a", "a", "b", "b"], torch.tensor([7, 7, 3, 3])], ids=["list", "tensor"])
def test_prompts_may_be_named_in_any_way(index):
    given, signals = batch()
    del signals["ablated_log_prob"]
    estimate = get_adv_estimator_fn("vgpo")
    expected = estimate(**given, **signals, **FOCUS)[0]
    assert torch.equal(estimate(**{**given, "index": index}, **signals, **FOCUS)[0], expected)


@pytest.mark.parametrize("algorithm", [{"norm_adv_by_std_in_grpo": False}, AlgoConfig(norm_adv_by_std_in_grpo=False)])
def test_verls_section_may_be_a_mapping_or_its_dataclass(algorithm):
    given, signals = batch()
    found = get_adv_estimator_fn("pgpo")(**given, config=algorithm, **signals)[0]
    expected, _ = ADV_ESTIMATOR_REGISTRY["grpo"](**given, norm_adv_by_std_in_grpo=False)
    dependency = sampled_k3(signals["old_log_prob"], signals["ablated_log_prob"])
    torch.testing.assert_close(found, expected * pgpo.token_weights(dependency, given["response_mask"]))


def test_masks_and_images_in_any_dtype():
    given, signals = batch()
    estimate = get_adv_estimator_fn("pgpo")
    expected = estimate(**given, has_image=torch.tensor([True, False, True, True]), **signals)[0]
    booleans = {**given, "response_mask": given["response_mask"].bool()}
    assert torch.equal(estimate(**booleans, has_image=[1, 0, 1, 1], **signals)[0], expected)
    with pytest.raises(ValueError, match="has_image has shape"):
        estimate(**given, has_image=torch.ones(4, 1), **signals)


def test_what_a_direct_call_cannot_do_is_refused():
    given, signals = batch()
    with pytest.raises(ValueError, match="base_estimator is 'gae'"):
        get_adv_estimator_fn("pgpo")(**given, base_estimator="gae", **signals)
    with pytest.raises(ValueError, match="each may be given once"):
        get_adv_estimator_fn("pgpo")(**given, methods=[PGPO(), PGPO(boost=1.0)], **signals)


def test_a_critic_is_needed_where_gae_is_weighted():
    config = configuration("+perception=pgpo", "perception.base_estimator=gae")
    assert weights_gae(config)
    assert not weights_gae(configuration("+perception=pgpo", "perception.base_estimator=gae", "critic.enable=False"))
    assert not weights_gae(configuration("+perception=pgpo"))


def test_several_methods_called_directly():
    given, signals = batch()
    signals["entropy_top_p_0.95"] = torch.rand(4, 6)
    estimate = get_adv_estimator_fn("perception")
    both = estimate(**given, methods=[PGPO(), ToR()], **signals)[0]
    one = estimate(**given, methods=[ToR()], **signals)[0]
    dependency = sampled_k3(signals["old_log_prob"], signals["ablated_log_prob"])
    torch.testing.assert_close(both, one * pgpo.token_weights(dependency, given["response_mask"]))


def test_a_signal_too_few_or_too_many_is_named():
    given, signals = batch()
    with pytest.raises(ConfigurationError, match=r"call the estimator with ablated_log_prob=\.\.\.$"):
        get_adv_estimator_fn("pgpo")(**given, old_log_prob=signals["old_log_prob"])
    with pytest.raises(TypeError, match="pgpo takes ablated_log_prob, old_log_prob and not entropy"):
        get_adv_estimator_fn("pgpo")(**given, entropy=signals["old_log_prob"], **signals)


# Nobody has measured


@pytest.mark.parametrize("name", REGISTERED)
def test_a_trainer_that_does_not_measure_is_stopped(name):
    with pytest.raises(ConfigurationError) as stopped:
        computed(PPOTrainerSync, queue.recorded_rows(LENGTHS), f"algorithm.adv_estimator={name}")
    group = "<method>" if name == "perception" else name
    remedy = f"nothing has measured what it weights by; add +perception={group}, or call the estimator with"
    assert str(stopped.value).startswith(f"algorithm.adv_estimator={name}: {remedy}")


def test_what_is_handed_over_is_taken_back():
    rows = queue.recorded_rows(LENGTHS)
    computed(PerceptionTrainerSync, rows, "+perception=pgpo")
    with pytest.raises(ConfigurationError, match="nothing has measured"):
        computed(PPOTrainerSync, rows, "algorithm.adv_estimator=pgpo")
    rows[2]["ablated_log_prob"][1] = float("nan")
    with pytest.raises(FloatingPointError):
        computed(PerceptionTrainerSync, rows, "+perception=pgpo")
    with pytest.raises(ConfigurationError, match="nothing has measured"):
        computed(PPOTrainerSync, rows, "algorithm.adv_estimator=pgpo")
