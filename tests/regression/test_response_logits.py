# SPDX-License-Identifier: Apache-2.0
"""Logits of response tokens alone: the same log-probabilities, entropies, signals, loss and gradients."""

import pytest
import torch
from support import workers

from verl_ext.models.language_model import named_part

pytestmark = pytest.mark.usefixtures("process_group")

EVERYTHING = [
    "+perception=papo_g",
    "recipe=grpo",
    "perception.papo.entropy_coef=0.03",
    "perception.methods=[papo,pepo,tor,pgpo]",
    "+perception.pgpo.divergence=kl",
    "+perception.pgpo.view=noised",
    "+perception.views.noised.kind=gaussian_noise",
]
PACKED = "actor_rollout_ref.model.use_remove_padding=True"
FULL = "perception.response_only_logits=False"
APART = "perception.share_prompts=False"


@pytest.fixture(scope="module", params=[False, True], ids=["padded", "packed"])
def packed(request):
    return request.param


@pytest.fixture(scope="module")
def pair(packed):
    """A worker that computes all logits, and one that, as it would by itself, computes those of responses."""
    overrides = [*EVERYTHING, *([PACKED] if packed else [])]
    with workers.transformers_restored():
        yield workers.build(*overrides, FULL), workers.build(*overrides, APART)


@pytest.mark.parametrize(
    "split", [{}, {"use_dynamic_bsz": True, "max_token_len_per_gpu": 160}], ids=["fixed", "dynamic"]
)
def test_log_probs_are_bit_equal_and_signals_agree(pair, rows, packed, split):
    full, short = (workers.all_measured(worker, rows, use_remove_padding=packed, **split) for worker in pair)
    assert full.keys() == short.keys()
    assert {"ablated_log_prob", "visual_kl_noised", "entropy_top_p_0.95", "log_probs", "entropy"} <= set(full)
    for name in full:
        pairs = [t.values() if t.is_nested else t for t in (full[name], short[name])]
        if name in ("log_probs", "ablated_log_prob"):
            assert torch.equal(*pairs), name
        else:
            assert torch.allclose(*map(torch.Tensor.double, pairs), atol=1e-5), name


def test_the_head_sees_response_tokens_alone(pair, rows, packed):
    _, short = pair
    seen = []
    head = named_part(short.actor.engine.module, "lm_head")
    handle = head.register_forward_hook(lambda _head, _args, output: seen.append(output.shape))
    workers.all_measured(short, rows, use_remove_padding=packed, micro_batch_size_per_gpu=8)
    handle.remove()
    responses = sum(row.response_length for row in rows)
    # The view that is only compared with the clean one needs no logits; a head must run, on one position.
    assert {tuple(shape[:-1]) for shape in seen} == {(1, responses), (1, 1)}
    assert responses < sum(len(row.input_ids) for row in rows) / 2


def test_loss_and_gradients_agree(pair, rows):
    full, short = (workers.loss_and_gradients(worker, rows) for worker in pair)
    assert short[0] == pytest.approx(full[0], rel=1e-6)
    assert full[1].keys() == short[1].keys()
    largest = max(gradient.abs().max() for gradient in full[1].values())
    assert largest > 1e-3
    for name, gradient in full[1].items():
        assert torch.allclose(short[1][name], gradient, atol=1e-5 * largest, rtol=0), name
