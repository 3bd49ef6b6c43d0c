# SPDX-License-Identifier: Apache-2.0
"""A frozen vision tower on verl's own engines: it stays as it is, and reusing its features changes no number."""

import logging
from functools import cache

import pytest
import torch
from support import batches, families, family_rows, fsdp1, ranks, tiny, tower_steps, workers

from verl_ext.models.vision_tower import vision_tower
from verl_ext.worker import tower_reuse

pytestmark = pytest.mark.usefixtures("process_group")

METHOD = (
    "+perception=pgpo",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "actor_rollout_ref.actor.optim.weight_decay=0.1",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
)
FSDP_CONFIG = "actor_rollout_ref.actor.fsdp_config"
FROZEN = "actor_rollout_ref.actor.freeze_vision_tower=True"
NO_CACHE = "perception.tower_cache_gb=0"
TOO_SMALL = "perception.tower_cache_gb=0.000001"
PACKED = ("actor_rollout_ref.model.use_remove_padding=True",)
CHECKPOINTING = ("actor_rollout_ref.model.enable_gradient_checkpointing=True",)
ORIGINAL = (*fsdp1.STRATEGY, f"{FSDP_CONFIG}.use_orig_params=True")
LORA = (
    "actor_rollout_ref.model.lora_rank=4",
    "actor_rollout_ref.model.lora_alpha=8",
    "actor_rollout_ref.model.target_modules=all-linear",
)
NOISED = (
    "perception.pgpo.divergence=kl",
    "perception.pgpo.view=noised",
    "+perception.views.noised.kind=gaussian_noise",
)
WAYS = {
    "fsdp2": (),
    "fsdp2 packed": PACKED,
    "fsdp2 checkpointing": CHECKPOINTING,
    "fsdp2 lora": LORA,
    "fsdp1": fsdp1.STRATEGY,
    "fsdp1 original parameters": ORIGINAL,
    "fsdp1 checkpointing": (*fsdp1.STRATEGY, *CHECKPOINTING),
    "fsdp1 lora": (*fsdp1.STRATEGY, *LORA),
}
# Where pixels come to the tower in one dtype or another, and where ranks have the same rows.
TWO_RANKS = {
    **{way: WAYS[way] for way in ("fsdp2", "fsdp2 lora", "fsdp1", "fsdp1 lora")},
    "fsdp1 bf16": (
        *fsdp1.STRATEGY,
        f"{FSDP_CONFIG}.mixed_precision.param_dtype=bf16",
        f"{FSDP_CONFIG}.reshard_after_forward=False",
    ),
    "fsdp2 split sequences": (*PACKED, f"{FSDP_CONFIG}.ulysses_sequence_parallel_size=2"),
}
SLOW = ("fsdp2 packed", "fsdp2 checkpointing", "fsdp1 original parameters", "fsdp1 checkpointing", "fsdp1 lora")
QUICK_OR_SLOW = [pytest.param(way, marks=pytest.mark.slow if way in SLOW else ()) for way in WAYS]


@cache
def steps(*overrides):
    """Three steps of a worker on one rank."""
    workers.restore_transformers()
    worker = workers.build(*METHOD, *overrides)
    rows = batches.rows(tiny.model(torch.float32))
    return tower_steps.steps(worker, rows, len(rows), reference="actor_rollout_ref.model.lora_rank=4" in overrides)


def assert_same_numbers(found, wanted, tolerance):
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        if not name.startswith("runs"):
            for got, value in zip(found[name], values, strict=True):
                assert torch.allclose(got.float(), value.float(), atol=tolerance, rtol=tolerance), name


def runs(found, kind):
    """Patch rows that the tower was given in passes of a kind, by step."""
    return [sum(each.tolist()) for each in found[f"runs, {kind}"]]


def assert_frozen(found):
    of_tower = [bool(each) for each in found["of the tower"]]
    moved = [bool(each) for each in found["moved"]]
    assert any(of_tower)
    assert not any(move for move, ours in zip(moved, of_tower, strict=True) if ours)
    assert any(move for move, ours in zip(moved, of_tower, strict=True) if not ours)
    with_gradient = [bool(each) for each in found["with gradient"]]
    assert not all(with_gradient)
    with_state = [bool(each) for each in found["with state"]]
    assert any(with_state)
    assert all(trained for trained, has in zip(with_gradient, with_state, strict=True) if has)


@pytest.mark.parametrize("way", QUICK_OR_SLOW)
def test_the_tower_stays_and_the_rest_is_trained(way):
    assert_frozen(steps(FROZEN, *WAYS[way]))


def test_without_the_key_the_tower_is_trained():
    """Otherwise nothing above shows anything."""
    found = steps()
    assert all(found["moved"])
    assert all(found["with state"])


@pytest.mark.parametrize("way", QUICK_OR_SLOW)
def test_reused_features_change_no_number(way):
    found, plain = steps(FROZEN, *WAYS[way]), steps(FROZEN, NO_CACHE, *WAYS[way])
    assert_same_numbers(found, plain, 1e-6)
    assert all(runs(plain, kind)[step] for kind in ("old", "update") for step in range(tower_steps.STEPS))


def test_from_the_second_step_on_every_picture_is_seen_once():
    found = steps(FROZEN)
    pictures = batches.rows(tiny.model(torch.float32), per_prompt=1)
    patches = sum(len(row.inputs["pixel_values"]) for row in pictures)
    assert runs(found, "old")[1:] == [patches, patches]
    assert runs(found, "update")[1:] == [0, 0]


def test_the_reference_of_an_adapter_reuses_them_too():
    found = steps(FROZEN, *LORA)
    first, *later = runs(found, "reference")
    assert first > 0
    assert not any(later)


def test_no_adapter_is_put_on_a_frozen_tower():
    for frozen, there in (([FROZEN], False), ([], True)):
        model = workers.build(*METHOD, *LORA, *frozen).actor.engine.module
        names = [name for name, _ in model.named_parameters() if "lora_" in name]
        assert any("language_model" in name for name in names)
        assert any("visual" in name for name in names) == there


def test_beyond_the_budget_pictures_are_computed_in_every_pass():
    found, plain = steps(FROZEN, TOO_SMALL), steps(FROZEN, NO_CACHE)
    assert_same_numbers(found, plain, 1e-6)
    assert all(runs(found, "old"))
    assert all(runs(found, "update"))


def test_a_view_with_other_pixels_has_features_of_its_own(rows):
    found = []
    for more in ([], [NO_CACHE]):
        worker = workers.build(*METHOD, *NOISED, FROZEN, *more)
        found += [workers.measured(worker, rows, **{**workers.STEP, "perception_step": step}) for step in (1, 2)]
    assert found[0]["visual_kl_noised"].values().abs().max() > 1e-3
    for cached, plain in zip(found[:2], found[2:], strict=True):
        assert cached.keys() == plain.keys()
        for name, values in plain.items():
            own, wanted = (each.values() if each.is_nested else each for each in (cached[name], values))
            torch.testing.assert_close(own.float(), wanted.float(), atol=1e-6, rtol=1e-6)


def test_the_reference_reuses_the_actors_features(rows):
    worker = workers.build(*METHOD, FROZEN)
    worker.ref = workers.build(*METHOD, FROZEN, role="ref").ref
    settings = {"compute_loss": False, "calculate_entropy": False, "use_remove_padding": False}
    given = []
    tower = vision_tower(worker.ref.engine.module)
    tower.get_submodule("blocks.0").register_forward_pre_hook(lambda _block, args: given.append(len(args[0])))
    outputs = []
    for _ in range(2):
        worker.compute_log_prob(batches.batch(rows, **settings))
        given.clear()
        outputs.append(worker.compute_ref_log_prob(batches.batch(rows, **settings))["log_probs"].values())
        seen = sum(given)
        assert (seen > 0) == (len(outputs) == 1)
    torch.testing.assert_close(*outputs, atol=1e-6, rtol=0)


def test_other_features_than_the_towers_are_noticed_and_not_used(rows, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("verl_ext"), "propagate", True)
    plain = steps(FROZEN, NO_CACHE)
    worker = workers.build(*METHOD, FROZEN)
    store = worker._tower._store
    monkeypatch.setattr(type(store), "__getitem__", lambda self, picture: halved(self._known[picture]))
    found = tower_steps.steps(worker, rows, len(rows))
    assert_same_numbers(found, plain, 0)
    warned = [record.getMessage() for record in caplog.records if "goes on without" in record.getMessage()]
    assert len(warned) == 2
    assert all(kind in text for kind, text in zip((tower_reuse.OLD_LOG_PROBS, tower_reuse.UPDATE), warned, strict=True))


def halved(seen):
    return type(seen)(seen.pooler_output / 2, seen.deepstack_features)


@pytest.mark.slow
@pytest.mark.parametrize(("trained", "without"), [([], {tower_reuse.REFERENCE}), ([FROZEN], set())])
def test_a_checkpoint_with_another_tower(trained, without, rows, tmp_path):
    """Features are let go of, and the reference, which has the first tower, has none of the actor's."""
    other = workers.build(*METHOD, *trained)
    tower_steps.steps(other, rows, len(rows))
    other.save_checkpoint(str(tmp_path), global_step=1)
    worker = workers.build(*METHOD, FROZEN)
    settings = {"compute_loss": False, "calculate_entropy": False, "use_remove_padding": False}
    worker.compute_log_prob(batches.batch(rows, **settings))
    assert len(worker._tower._store)
    worker.load_checkpoint(str(tmp_path))
    assert len(worker._tower._store) == 0
    assert worker._tower._without == without
    wanted = other.compute_log_prob(batches.batch(rows, **settings))["log_probs"].values()
    found = worker.compute_log_prob(batches.batch(rows, **settings))["log_probs"].values()
    assert found.equal(wanted)


@pytest.mark.slow
def test_a_run_may_go_on_with_the_tower_trained(rows, tmp_path):
    frozen = workers.build(*METHOD, FROZEN)
    tower_steps.steps(frozen, rows, len(rows))
    frozen.save_checkpoint(str(tmp_path), global_step=1)
    worker = workers.build(*METHOD)
    worker.load_checkpoint(str(tmp_path))
    assert all(tower_steps.steps(worker, rows, len(rows))["moved"])


@pytest.mark.parametrize(
    "name",
    ["qwen3_vl", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qwen2_vl", "qwen3_5", "glm4v", "glm46v"))],
)
def test_families(name):
    """Deepstack features, towers that verl reads as tensors, and forwards that are transformers' own."""
    found = {}
    for more in ((), (NO_CACHE,)):
        with workers.transformers_restored():
            rows = family_rows.rows(name, family_rows.load(name))
            worker = workers.build(*METHOD, FROZEN, f"actor_rollout_ref.model.path={families.path(name)}", *more)
            found[more] = tower_steps.steps(worker, rows, len(rows))
    assert_frozen(found[()])
    assert_same_numbers(found[()], found[NO_CACHE,], 1e-6)
    assert runs(found[()], "update")[1:] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("way", TWO_RANKS)
def test_images_on_one_of_two_ranks(way, tmp_path):
    """Ranks stay in step whether the tower runs or not."""
    found = {}
    for more in ((), (NO_CACHE,)):
        folder = tmp_path / str(len(more))
        folder.mkdir()
        found[more] = ranks.both(folder, "steps", *METHOD, FROZEN, *TWO_RANKS[way], *more, images="first half")
    assert_frozen(found[()])
    assert_same_numbers(found[()], found[NO_CACHE,], 1e-6)
    passes = tower_steps.STEPS
    first, second = (
        [each.tolist() for each in found[()]["runs, update"]][part : part + passes] for part in (0, passes)
    )
    assert first[1:] == second[1:] == [[], []]
    assert sum(first[0]) >= sum(second[0]) > 0
