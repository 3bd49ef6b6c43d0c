# SPDX-License-Identifier: Apache-2.0
"""A prompt computed once for its responses: the same log-probabilities, signals, losses and gradients."""

from contextlib import contextmanager

import pytest
import torch
from support import batches, fsdp1, ranks, tiny, workers
from verl.utils import tensordict_utils as tu

from verl_ext.ablation import AblationSpec
from verl_ext.models.language_model import decoder
from verl_ext.passes.ablated_batch import Ablation
from verl_ext.signals.request import MAIN_VIEW

pytestmark = pytest.mark.usefixtures("process_group")

EVERYTHING = [
    "+perception=papo_g",
    "recipe=grpo",
    "perception.papo.entropy_coef=0.03",
    "perception.methods=[papo,pepo,tor,pgpo,vgpo]",
    "+perception.pgpo.divergence=kl",
    "+perception.pgpo.view=noised",
    "+perception.views.noised.kind=gaussian_noise",
]
PACKED = "actor_rollout_ref.model.use_remove_padding=True"
APART = "perception.share_prompts=False"
SHARED = "perception.share_prompts=True"


@pytest.fixture(scope="module")
def rows():
    """Three responses to each of four prompts, and a row that is alone."""
    vlm = tiny.model(torch.float32)
    return [*batches.rows(vlm, per_prompt=3), tiny.row([], "is it dark?", batches.RESPONSES[0], vlm, seed=3)]


@pytest.fixture(scope="module", params=[pytest.param(False, marks=pytest.mark.slow), True], ids=["padded", "packed"])
def packed(request):
    return request.param


@pytest.fixture(scope="module")
def pair(packed):
    """A worker that computes every prompt n times, and one that shares them."""
    overrides = [*EVERYTHING, *([PACKED] if packed else [])]
    with workers.transformers_restored():
        yield workers.build(*overrides, APART), workers.build(*overrides, SHARED)


SPLITS = {
    "all": {"micro_batch_size_per_gpu": 13},
    "one row at a time": {"micro_batch_size_per_gpu": 1},
    "dynamic": {"use_dynamic_bsz": True, "max_token_len_per_gpu": 160},
    "dynamic, all": {"use_dynamic_bsz": True, "max_token_len_per_gpu": 10_000},
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("order", ["mixed", pytest.param("in order", marks=pytest.mark.slow)])
def test_all_that_is_measured_agrees(pair, rows, packed, split, order):
    given = rows if order == "in order" else [rows[i] for i in torch.randperm(13, generator=torch.manual_seed(1))]
    apart, shared = (workers.all_measured(worker, given, use_remove_padding=packed, **SPLITS[split]) for worker in pair)
    assert shared.keys() == apart.keys()
    assert {"ablated_log_prob", "visual_kl_noised", "log_probs", "entropy"} <= set(apart)
    for name in apart:
        one, other = (t.values() if t.is_nested else t for t in (apart[name], shared[name]))
        torch.testing.assert_close(other, one, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_what_was_saved_is_told(pair, rows):
    engine = pair[1].actor.engine
    data = batches.batch(rows[:12], use_dynamic_bsz=False, micro_batch_size_per_gpu=6, global_batch_size=12)
    tu.assign_non_tensor(data, use_fused_kernels=False, use_remove_padding=engine.use_remove_padding)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        no_loss = lambda model_output, **_: (model_output["log_probs"].values().sum() * 0.0, {})  # noqa: E731
        metrics = engine.forward_backward_batch(data, no_loss, forward_only=False)["metrics"]
    prompts = [len(row.input_ids) - row.response_length for row in rows[:12]]
    assert metrics["perception/prompt_tokens"].aggregate() == sum(prompts)
    saved = metrics["perception/shared_tokens_saved"].aggregate()
    assert saved == sum(prompts) - sum(prompts[::3])


def test_loss_and_gradients_agree(pair, rows):
    assert_same_updates(*(workers.loss_and_gradients(worker, rows[:12]) for worker in pair))


def assert_same_updates(apart, shared):
    assert shared[0] == pytest.approx(apart[0], rel=1e-6)
    assert apart[1].keys() == shared[1].keys()
    largest = max(gradient.abs().max() for gradient in apart[1].values())
    assert largest > 1e-3
    for name, gradient in apart[1].items():
        torch.testing.assert_close(shared[1][name], gradient, atol=1e-5 * largest, rtol=0, msg=name)


@pytest.mark.parametrize(
    "more",
    [
        ["actor_rollout_ref.model.enable_gradient_checkpointing=True"],
        ["actor_rollout_ref.model.lora_rank=4", "actor_rollout_ref.model.lora_alpha=8"],
        ["actor_rollout_ref.model.lora_rank=4", "actor_rollout_ref.model.enable_gradient_checkpointing=True"],
        fsdp1.STRATEGY,
    ],
    ids=["checkpointing", "LoRA", "LoRA, checkpointing", "FSDP1"],
)
def test_the_update_of_other_actors(rows, more):
    with workers.transformers_restored():
        found = [
            workers.loss_and_gradients(workers.build(*EVERYTHING, PACKED, share, *more), rows[:12])
            for share in (APART, SHARED)
        ]
    assert_same_updates(*found)


def test_a_reference_shares_too(rows):
    """Of another batch than the actor's, with responses of its own."""
    kl = "actor_rollout_ref.actor.use_kl_loss=True"
    found = []
    with workers.transformers_restored():
        for share in (APART, SHARED):
            worker = workers.build(*EVERYTHING, PACKED, kl, share, role="ref")
            data = batches.batch(rows, compute_loss=False, calculate_entropy=False, use_remove_padding=True)
            tu.assign_non_tensor(data, micro_batch_size_per_gpu=13)
            found.append(worker.compute_ref_log_prob(data)["log_probs"].values())
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)


@contextmanager
def positions_counted(worker):
    """How many positions the decoder computes, pass by pass."""
    counted = []
    norm = decoder(worker.actor.engine.module).norm
    handle = norm.register_forward_hook(lambda _norm, _given, states: counted.append(states.shape[:-1].numel()))
    yield counted
    handle.remove()


@pytest.mark.parametrize("kind", ["drop_vision", "random_patch", "gaussian_noise", "shuffle_text"])
@pytest.mark.parametrize("scope", ["prompt", pytest.param("response", marks=pytest.mark.slow)])
def test_a_prompt_is_ablated_once_and_shared(pair, rows, packed, kind, scope):
    """With a mask or noise a response nothing can be shared; dropped tokens have neither."""
    found = []
    for worker in pair:
        spec = AblationSpec(kind=kind, scope=scope)
        kept, worker.ablations = worker.ablations, {MAIN_VIEW: Ablation(spec, worker.model_facts, seed=0)}
        worker.ablations |= {name: ablation for name, ablation in kept.items() if name != MAIN_VIEW}
        data = batches.batch(rows, compute_loss=False, calculate_entropy=False, use_remove_padding=packed)
        tu.assign_non_tensor(data, micro_batch_size_per_gpu=13, **workers.STEP)
        with positions_counted(worker) as counted:
            found.append((worker.compute_ablated_log_prob(data)["ablated_log_prob"].values(), counted))
        worker.ablations = kept
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-5, rtol=0)
    shares = scope == "prompt" or kind == "drop_vision"
    assert (sum(found[1][1]) < 0.8 * sum(found[0][1])) == shares


BUDGET = [
    "actor_rollout_ref.actor.use_dynamic_bsz=True",
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=160",
]


def test_two_ranks_with_images_on_one_cut_by_a_budget_of_tokens(tmp_path):
    """The ranks need different numbers of micro-batches, and run equally many."""
    passes = "compute_log_prob,compute_ablated_log_prob,gradients"
    found = ranks.both(tmp_path, passes, *EVERYTHING, PACKED, SHARED, *BUDGET, images="first half")
    rows = batches.half_with_images(tiny.model(torch.float32))
    with workers.transformers_restored():
        worker = workers.build(*EVERYTHING, PACKED, APART)
        data = {"compute_loss": False, "calculate_entropy": True, "use_remove_padding": True, **workers.STEP}
        wanted = dict(worker.compute_log_prob(batches.batch(rows, **data)).items())
        wanted |= dict(worker.compute_ablated_log_prob(batches.batch(rows, **data)).items())
        gradients = workers.loss_and_gradients(worker, rows)[1]
    names = [name for name, values in wanted.items() if torch.is_tensor(values) and values.is_nested]
    assert {"log_probs", "ablated_log_prob", "visual_kl_noised"} <= set(names)
    for name in names:
        for one, other in zip(found[name], wanted[name].unbind(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0, msg=name)
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name][0], gradient, atol=1e-5 * largest, rtol=0, msg=name)
