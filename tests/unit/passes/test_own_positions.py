# SPDX-License-Identifier: Apache-2.0
"""Positions cut over any number of ranks, re-enacted rank by rank in this process."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from torch.nested import nested_tensor_from_jagged
from transformers import Qwen2_5_VLConfig
from verl.utils import tensordict_utils as tu

from verl_ext.models.language_model import hooks
from verl_ext.passes.equal_lists import EqualLists
from verl_ext.passes.fsdp.clean_pass import with_truncated_entropy
from verl_ext.passes.own_positions import EqualParts, Whole, own_layout
from verl_ext.passes.token_layout import predictors, token_layout
from verl_ext.signals.entropy import truncated_entropy
from verl_ext.signals.layer_similarity import SimilarityAccumulator
from verl_ext.signals.request import Entropy
from verl_ext.worker.detached_worker import without_live_weights

WIDTH, VOCABULARY, IMAGE = 8, 50, 7


class OneOf(EqualParts):
    """Rank `rank` of `ranks`; what the group adds is added up here, over ranks that run one after another."""

    def __init__(self, rank, ranks, totals=None):
        self._rank, self.ranks, self._totals = rank, ranks, totals

    def summed(self, values):
        return values if self._totals is None else self._totals(values)


def batch(prompts, responses, seed=0):
    """Packed sequences; a third of each prompt are image tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(8, VOCABULARY, (p + r,), generator=generator) for p, r in zip(prompts, responses, strict=True)]
    for row, prompt in zip(ids, prompts, strict=True):
        row[1 : 1 + prompt // 3] = IMAGE
    offsets = [
        torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()]) for lengths in ([len(r) for r in ids], responses)
    ]
    fields = {
        "input_ids": nested_tensor_from_jagged(torch.cat(ids), offsets[0]),
        "responses": nested_tensor_from_jagged(
            torch.cat([row[p:] for row, p in zip(ids, prompts, strict=True)]), offsets[1]
        ),
    }
    data = TensorDict(fields, batch_size=len(ids))
    tu.assign_non_tensor(data, use_remove_padding=True, temperature=1.0)
    return data


rows = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 14)), min_size=1, max_size=4)


@given(rows=rows, ranks=st.integers(1, 5))
def test_equal_lists_hold_every_position_once(rows, ranks):
    where = predictors(batch(*zip(*rows, strict=True)))
    total = sum(map(sum, rows))
    length = -(-total // ranks)
    lists = [EqualLists.of(where, OneOf(rank, ranks), length) for rank in range(ranks)]
    assert {one.length for one in lists} == {len(one.rows) for one in lists} == {max(1, lists[0].length)}
    laid = torch.cat([one.rows + rank * length for rank, one in enumerate(lists)])
    for one in lists:
        assert torch.equal(laid[one.order], where)
    assert torch.equal(EqualLists.of(where, Whole(), total).rows, where)


@given(rows=rows, ranks=st.integers(1, 5), response_only=st.booleans())
def test_truncated_entropies_of_the_parts_are_those_of_the_whole(rows, ranks, response_only):
    """Also where all that one rank computes are response tokens, so that short lists are as long as its part."""
    data = batch(*zip(*rows, strict=True))
    where = predictors(data)
    length = -(-sum(map(sum, rows)) // ranks)
    # Of double precision: a last bit decides which token is the last of a nucleus.
    states = torch.randn(ranks * length, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = torch.nn.Module()
    model.lm_head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=torch.float64)
    model.config = Qwen2_5_VLConfig()
    total = torch.zeros(len(where), dtype=torch.float64)
    for rank in range(ranks):
        parts = OneOf(rank, ranks, total.add_)

        def shorten(_head, given, parts=parts):
            return (given[0].flatten(0, -2)[EqualLists.of(where, parts, length).rows][None],)

        def step(_batch, part=states[rank * length : (rank + 1) * length], shorten=shorten):
            short = [model.lm_head.register_forward_pre_hook(shorten)] if response_only else []
            with hooks(*short):
                model.lm_head(part[None])
            return None, {"model_output": {}}

        _, output = with_truncated_entropy(step, model, Entropy(0.95), parts, response_only)(data)
    if ranks == 1:
        total = output["model_output"][Entropy(0.95).field].values()
    wanted = truncated_entropy(model.lm_head(states[where]).detach(), 0.95)
    torch.testing.assert_close(total, wanted, atol=1e-6, rtol=0, check_dtype=False)


@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("pooling", ["pairwise_mean", "prototype"])
def test_similarity_of_the_parts_is_that_of_the_whole(ranks, pooling):
    """The ranks run side by side, layer by layer, since each waits for the image sums of all."""
    data = batch([9, 12, 2], [5, 1, 14])
    layout = token_layout(data, [IMAGE])
    length = -(-sum(data["input_ids"].offsets().diff()).item() // ranks)
    layers = torch.randn(3, ranks * length, WIDTH, generator=torch.Generator().manual_seed(2))
    whole = SimilarityAccumulator(layout, pooling=pooling)
    for layer in layers:
        whole.add(layer)
    found, alone = torch.zeros(len(layout.tokens)), []
    for rank in range(ranks):
        own, kept = own_layout(OneOf(rank, ranks), layout, length)
        alone.append((own, kept, slice(rank * length, (rank + 1) * length)))
    sums = image_sums(alone, layers, layout, pooling)
    for own, kept, part in alone:
        answers = iter(sums)
        one = SimilarityAccumulator(own, pooling=pooling, summed=lambda _, answers=answers: next(answers).clone())
        for layer in layers:
            one.add(layer[part])
        found[kept] = one.result()
    torch.testing.assert_close(found, whole.result(), atol=1e-6, rtol=0)


def image_sums(alone, layers, layout, pooling):
    """What each call of `summed` must return: what all ranks give to it, added up."""
    given = []
    for own, _, part in alone:
        calls = []

        def record(values, calls=calls):
            calls.append(values.clone())
            return values

        one = SimilarityAccumulator(own, pooling=pooling, summed=record)
        for layer in layers:
            one.add(layer[part])
        given.append(calls)
    return [torch.stack(call).sum(dim=0) for call in zip(*given, strict=True)]


def test_saved_weights_are_copies_of_live_ones_only():
    module = torch.nn.Linear(2, 2)
    other = torch.zeros(2)
    saved = ({"weight": (module.weight.detach(), "spec"), "other": (other, None)}, "spec")
    copies = without_live_weights(saved, module)
    with torch.no_grad():
        module.weight.fill_(9.0)
    assert not (copies[0]["weight"][0] == 9.0).any()
    assert copies[0]["other"][0] is other
    assert copies[0]["weight"][1] == copies[1] == "spec"
