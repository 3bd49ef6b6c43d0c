# SPDX-License-Identifier: Apache-2.0
"""verl's own estimator, then the method's weights, through a real TransferQueue."""

import pytest
import torch
import transfer_queue as tq
from support import queue
from support.configuration import configuration
from support.neutral import NEUTRAL, WEIGHTING
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ext.configuration.section import parse
from verl_ext.methods import pgpo
from verl_ext.passes.signals_by_pass import plan
from verl_ext.signals import sampled_k3
from verl_ext.supervision.broken_numbers import BrokenNumberError, BrokenRows
from verl_ext.trainer.trainers import PerceptionTrainerSync

LENGTHS = [7, 5, 9, 3, 1, 6, 8, 4]


@pytest.fixture(scope="module", autouse=True)
def transfer_queue():
    with queue.transfer_queue(configuration("+perception=pgpo")):
        yield


def trainer(cls, *overrides):
    """A trainer without workers: only what its advantage stage reads."""
    config = configuration(*overrides)
    made = object.__new__(cls)
    made.config = config
    made.global_steps = 3
    made.total_training_steps = 5
    made._warned_without_images = False
    if "perception" in config:
        made.perception = parse(config.perception)
        made.plan = plan(made.perception.signals)
    return made


def computed(maker, rows, padding=0):
    meta = queue.put(rows, padding=padding)
    metrics = {}
    maker._compute_advantage(meta, metrics=metrics)
    result = queue.advantages(meta)
    queue.clear(meta)
    return result, metrics


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def close(a, b):
    return a.keys() == b.keys() and all(torch.allclose(a[key], b[key], atol=1e-6) for key in a)


def ours(metrics):
    return {name: value for name, value in metrics.items() if name.startswith("perception/")}


@pytest.fixture(scope="module")
def vanilla():
    return trainer(PPOTrainerSync, "algorithm.adv_estimator=grpo")


def test_pgpo_without_images_is_grpo(vanilla):
    rows = queue.recorded_rows(LENGTHS, images=False)
    expected, _ = computed(vanilla, rows)
    weighted, metrics = computed(trainer(PerceptionTrainerSync, "+perception=pgpo"), rows)
    assert same(weighted, expected)
    assert metrics["perception/token_weight/effective_fraction"] == 1.0
    assert any(values.abs().max() > 0 for values in expected.values())


def test_papo_leaves_advantages_to_verl(vanilla):
    rows = queue.recorded_rows(LENGTHS)
    assert same(computed(trainer(PerceptionTrainerSync, "+perception=papo_g"), rows)[0], computed(vanilla, rows)[0])


def test_pgpo_multiplies_by_its_weights(vanilla):
    rows = queue.recorded_rows(LENGTHS)
    expected, _ = computed(vanilla, rows)
    weighted, _ = computed(trainer(PerceptionTrainerSync, "+perception=pgpo"), rows)
    for (key, advantage), row in zip(expected.items(), rows, strict=True):
        dependency = sampled_k3(row["old_log_probs"], row["ablated_log_prob"])[None]
        weight = pgpo.token_weights(dependency, torch.ones_like(dependency))[0]
        torch.testing.assert_close(weighted[key], advantage * weight)


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "reinforce_plus_plus", "gae"])
def test_any_base_estimator_of_verl_can_be_weighted(estimator):
    rows = queue.recorded_rows(LENGTHS, fields=["values"])
    base = advantages_of("pgpo", f"perception.base_estimator={estimator}", rows=rows, images=False)
    expected, _ = computed(trainer(PPOTrainerSync, f"algorithm.adv_estimator={estimator}"), rows)
    assert same(base, expected)
    weighted = advantages_of("pgpo", f"perception.base_estimator={estimator}", rows=rows)
    grpo = advantages_of("pgpo", rows=rows)
    for key, row in zip(expected, rows, strict=True):
        dependency = sampled_k3(row["old_log_probs"], row["ablated_log_prob"])[None]
        weight = pgpo.token_weights(dependency, torch.ones_like(dependency))[0]
        torch.testing.assert_close(weighted[key], expected[key] * weight)
    assert estimator == "grpo" or not same(weighted, grpo)


def advantages_of(group, *overrides, rows=None, images=True, **put):
    """{key: advantages} of a method over recorded rows, with random values for every signal that it wants."""
    made = trainer(PerceptionTrainerSync, f"+perception={group}", *overrides)
    if rows is None:
        fields = [signal.field for signal in made.perception.signals if signal.field != "ablated_log_prob"]
        rows = queue.recorded_rows(LENGTHS, images=images, fields=fields)
    rows = [{**row, "has_image": torch.tensor(images)} for row in rows]
    return computed(made, rows, **put)[0]


@pytest.mark.parametrize("group", NEUTRAL)
def test_a_neutral_setting_is_grpo(vanilla, group):
    rows = queue.recorded_rows(LENGTHS)
    assert same(advantages_of(group, *NEUTRAL[group], rows=rows), computed(vanilla, rows)[0])


@pytest.mark.parametrize("group", NEUTRAL)
def test_without_images_every_method_is_grpo(vanilla, group):
    expected, _ = computed(vanilla, queue.recorded_rows(LENGTHS))
    assert same(advantages_of(group, images=False), expected)


@pytest.mark.parametrize("group", WEIGHTING)
def test_every_weighting_method_changes_the_advantages(vanilla, group):
    expected, _ = computed(vanilla, queue.recorded_rows(LENGTHS))
    assert not same(advantages_of(group), expected)


@pytest.mark.parametrize("group", WEIGHTING)
def test_weights_of_the_first_and_last_step_differ_only_where_scheduled(group):
    made = trainer(PerceptionTrainerSync, f"+perception={group}")
    fields = [signal.field for signal in made.perception.signals if signal.field != "ablated_log_prob"]
    rows = queue.recorded_rows(LENGTHS, fields=fields)
    results = []
    for step in (1, 5):
        made.global_steps = step
        results.append(computed(made, rows)[0])
    assert same(*results) == (group != "pepo_g")


@pytest.mark.parametrize("group", WEIGHTING)
def test_order_and_padding_change_nothing_for_any_method(group):
    made = trainer(PerceptionTrainerSync, f"+perception={group}")
    fields = [signal.field for signal in made.perception.signals if signal.field != "ablated_log_prob"]
    rows = queue.recorded_rows(LENGTHS, fields=fields)
    expected, _ = computed(made, rows)
    padded, _ = computed(made, rows, padding=3)
    assert close({key: padded[key] for key in expected}, expected)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist()
    shuffled, _ = computed(made, [rows[i] for i in order])
    by_row = list(expected.values())
    assert all(torch.allclose(v, by_row[i], atol=1e-6) for v, i in zip(shuffled.values(), order, strict=True))


def test_vgpo_compares_the_responses_to_one_prompt_wherever_they_stand():
    """The released code takes runs of adjacent rows for groups."""
    made = trainer(PerceptionTrainerSync, "+perception=vgpo", "perception.vgpo.token_reweighting=False")
    rows = queue.recorded_rows([6, 6, 6, 6], fields=["visual_similarity_cosine_last_prototype"])
    expected = list(computed(made, rows)[0].values())
    interleaved = list(computed(made, [rows[i] for i in (0, 2, 1, 3)])[0].values())
    assert all(torch.allclose(a, expected[i]) for a, i in zip(interleaved, (0, 2, 1, 3), strict=True))
    regrouped = [{**row, "uid": f"prompt{index % 2}"} for index, row in enumerate(rows)]
    assert not all(torch.allclose(a, b) for a, b in zip(computed(made, regrouped)[0].values(), expected, strict=True))


def test_groups_of_equal_rewards_can_be_given_no_advantage():
    rows = queue.recorded_rows([3, 3, 3, 3, 3, 3, 3, 3, 2], per_prompt=8)
    for row in rows[:8]:
        row["rm_scores"] = torch.tensor([0.0, 0.0, 0.9])
    rows[8]["rm_scores"] = torch.tensor([0.0, 1.0])
    kept = advantages_of("papo_g", "perception.papo.coef=0", rows=rows)
    # The rounding noise of the mean over 1e-6, and the whole reward of a response alone.
    assert {round(values.abs().max().item(), 3) for values in kept.values()} == {0.056, 1.0}
    zeroed = advantages_of("papo_g", "perception.zero_equal_reward_groups=True", rows=rows)
    assert all((values == 0).all() for values in zeroed.values())
    mixed = queue.recorded_rows(LENGTHS, per_prompt=8)
    assert same(
        advantages_of("papo_g", "perception.zero_equal_reward_groups=True", rows=mixed),
        advantages_of("papo_g", rows=mixed),
    )


def test_row_order_and_padding_rows_change_nothing():
    pgpo_trainer = trainer(PerceptionTrainerSync, "+perception=pgpo")
    rows = queue.recorded_rows(LENGTHS)
    expected, metrics = computed(pgpo_trainer, rows)
    padded, padded_metrics = computed(pgpo_trainer, rows, padding=3)
    assert same({key: padded[key] for key in expected}, expected)
    assert ours(padded_metrics) == ours(metrics)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist()
    shuffled, _ = computed(pgpo_trainer, [rows[i] for i in order])
    by_row = list(expected.values())
    assert all(torch.equal(value, by_row[i]) for value, i in zip(shuffled.values(), order, strict=True))


def test_text_only_data_warns_once(caplog):
    pgpo_trainer = trainer(PerceptionTrainerSync, "+perception=pgpo")
    rows = queue.recorded_rows(LENGTHS, images=False)
    for _ in range(2):
        computed(pgpo_trainer, rows)
    warnings = [
        record.getMessage() for record in caplog.records if "no row of the batch has an image" in record.getMessage()
    ]
    assert len(warnings) == 1
    assert "data.image_key=images" in warnings[0]


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("pgpo", "ablated_log_prob", float("nan")),
        ("papo_g", "ablated_log_prob", float("nan")),
        ("vgpo", "visual_similarity_cosine_last_prototype", float("inf")),
        ("vepo", "visual_jsd", float("inf")),
    ],
)
def test_a_broken_signal_stops_the_step(group, field, value):
    made = trainer(PerceptionTrainerSync, f"+perception={group}")
    fields = [signal.field for signal in made.perception.signals if signal.field != "ablated_log_prob"]
    rows = queue.recorded_rows(LENGTHS, fields=fields)
    rows[2][field][1] = value
    message = (
        rf"step 3: {field} \({made.perception.methods[0].name}\) of 1 responses .* to the prompts prompt1; the step"
    )
    with pytest.raises(BrokenNumberError, match=message):
        computed(made, rows)


def test_a_token_that_is_impossible_without_the_image_is_allowed():
    rows = queue.recorded_rows(LENGTHS)
    rows[2]["ablated_log_prob"][1] = -float("inf")
    assert all(torch.isfinite(values).all() for values in advantages_of("pgpo", rows=rows).values())


def test_a_broken_log_probability_stops_the_step():
    rows = queue.recorded_rows(LENGTHS)
    rows[2]["old_log_probs"][1] = float("nan")
    with pytest.raises(BrokenNumberError, match=r"old_log_probs \(every method\) of 1 responses"):
        computed(trainer(PerceptionTrainerSync, "+perception=pgpo"), rows)


@pytest.mark.parametrize(
    ("group", "field"),
    [("pgpo", "ablated_log_prob"), ("papo_g", "ablated_log_prob"), ("vgpo", "old_log_probs"), ("vepo", "visual_jsd")],
)
def test_broken_responses_can_be_left_out(group, field):
    made = trainer(PerceptionTrainerSync, f"+perception={group}", "perception.on_broken=skip")
    fields = [signal.field for signal in made.perception.signals if signal.field != "ablated_log_prob"]
    rows = queue.recorded_rows(LENGTHS, fields=fields)
    rows[2][field][1] = float("nan")
    meta, metrics = queue.put(rows, padding=3), {}
    made._compute_advantage(meta, metrics=metrics)
    found = queue.advantages(meta)
    stored = tq.kv_batch_get(
        keys=meta.keys, partition_id=queue.PARTITION, select_fields=["has_image", "old_log_probs", field]
    )
    queue.clear(meta)
    assert metrics["perception/broken_rows"] == 1.0
    assert torch.equal(found[meta.keys[2]], torch.zeros(LENGTHS[2]))
    assert all(torch.isfinite(values).all() for values in found.values())
    assert stored["has_image"][: len(rows)].tolist() == [index != 2 for index in range(len(rows))]
    assert all(torch.isfinite(values).all() for values in stored[field].unbind()[: len(rows)])
    assert torch.equal(stored["old_log_probs"].unbind()[0], rows[0]["old_log_probs"])


def test_leaving_out_changes_no_other_response():
    rows = queue.recorded_rows(LENGTHS)
    expected, _ = computed(trainer(PerceptionTrainerSync, "+perception=pgpo"), rows)
    rows[2]["ablated_log_prob"][1] = float("nan")
    found, _ = computed(trainer(PerceptionTrainerSync, "+perception=pgpo", "perception.on_broken=skip"), rows)
    assert all(torch.equal(found[key], expected[key]) for key in expected if key != list(expected)[2])


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_weights_that_a_method_breaks(policy):
    broken = BrokenRows(policy, 7, ["a", "b", "b"])
    weights = {"pgpo": torch.tensor([[1.0, 1.0], [1.0, float("inf")], [1.0, 1.0]])}
    mask = torch.ones(3, 2, dtype=torch.bool)
    if policy == "stop":
        with pytest.raises(BrokenNumberError, match=r"step 7: advantage weights \(pgpo\) of 1 responses .* prompts b;"):
            broken.finite(weights, mask)
        return
    assert broken.finite(weights, mask)["pgpo"].tolist() == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    assert broken.rows.tolist() == [False, True, False]


def test_shuffled_weights_are_the_same_on_other_tokens(vanilla):
    rows = queue.recorded_rows(LENGTHS)
    expected, _ = computed(vanilla, rows)
    given, _ = computed(trainer(PerceptionTrainerSync, "+perception=pgpo"), rows)
    control = trainer(PerceptionTrainerSync, "+perception=pgpo", "perception.shuffle_weights=True")
    found, metrics = computed(control, rows, padding=3)
    for key, length in zip(expected, LENGTHS, strict=True):
        assert torch.allclose(found[key].sort().values, given[key].sort().values, atol=1e-6)
        moved = not torch.allclose(found[key], given[key], atol=1e-6)
        assert moved or length < 5 or expected[key].abs().max() == 0
    assert metrics["perception/token_weight/max"] > 1
    backwards = computed(control, rows[::-1])[0]
    for first, second in zip(list(found.values())[: len(rows)], reversed(backwards.values()), strict=True):
        assert torch.allclose(first, second, atol=1e-6)


def test_influence_fades_over_the_run(vanilla):
    rows = queue.recorded_rows(LENGTHS)
    expected, _ = computed(vanilla, rows)
    full, _ = computed(trainer(PerceptionTrainerSync, "+perception=pgpo"), rows)
    half_way = trainer(PerceptionTrainerSync, "+perception=pgpo", "perception.fade_over=0.8")
    faded, _ = computed(half_way, rows)
    for key in expected:
        # Two of five steps are done: half of what 0.8 of the run takes away.
        assert torch.allclose(faded[key], (expected[key] + full[key]) / 2, atol=1e-6)
    gone = trainer(PerceptionTrainerSync, "+perception=pgpo", "perception.fade_over=0.4")
    assert close(computed(gone, rows)[0], expected)
