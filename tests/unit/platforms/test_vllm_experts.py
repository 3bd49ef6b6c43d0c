# SPDX-License-Identifier: Apache-2.0
"""Experts on the CPU, token by token."""

import pytest
import torch

from verl_ext.platforms.cpu.vllm_experts import run_experts

TOKENS, HIDDEN, INNER, EXPERTS, CHOSEN = 5, 8, 6, 4, 2


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    return {
        "states": draw(TOKENS, HIDDEN),
        "gate_up": draw(EXPERTS, 2 * INNER, HIDDEN),
        "down": draw(EXPERTS, HIDDEN, INNER),
        "gate_up_bias": draw(EXPERTS, 2 * INNER),
        "down_bias": draw(EXPERTS, HIDDEN),
        "weights": torch.rand(TOKENS, CHOSEN, generator=generator),
        "chosen": torch.stack([torch.randperm(EXPERTS, generator=generator)[:CHOSEN] for _ in range(TOKENS)]),
    }


def by_token(parts, unweighted):
    rows = []
    for token in range(TOKENS):
        total = torch.zeros(HIDDEN)
        for place in range(CHOSEN):
            expert = parts["chosen"][token, place]
            both = parts["gate_up"][expert] @ parts["states"][token] + parts["gate_up_bias"][expert]
            inner = both[:INNER] * torch.sigmoid(both[:INNER]) * both[INNER:]
            made = parts["down"][expert] @ inner + parts["down_bias"][expert]
            total += made * (1.0 if unweighted else parts["weights"][token, place])
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("unweighted", [False, True])
def test_it_is_the_weighted_sum_of_what_the_chosen_make(parts, unweighted):
    found = run_experts(**parts, activation="silu", _isa="", unweighted=unweighted)
    torch.testing.assert_close(found, by_token(parts, unweighted), atol=1e-5, rtol=1e-5)


def test_another_activation_is_refused(parts):
    with pytest.raises(ValueError, match="not gelu"):
        run_experts(**parts, activation="gelu", _isa="")
