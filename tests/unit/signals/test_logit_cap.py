# SPDX-License-Identifier: Apache-2.0
"""Logits that a model caps behind its head."""

import pytest
import torch

from verl_ext.signals.full_vocabulary import logits_divergences, view_divergences
from verl_ext.signals.logit_cap import capped

CAP = 3.0


def test_it_is_what_the_formula_says():
    logits = torch.tensor([-100.0, -1.0, 0.0, 1.0, 100.0])
    torch.testing.assert_close(capped(logits, CAP), CAP * torch.tanh(logits / CAP))
    assert capped(logits, None) is logits


@pytest.mark.parametrize("cap", [0.0, -1.0, float("nan")])
def test_a_cap_is_above_zero(cap):
    with pytest.raises(ValueError, match="logit_cap is"):
        capped(torch.zeros(2), cap)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_divergences_are_those_of_capped_logits(temperature):
    generator = torch.Generator().manual_seed(0)
    clean, ablated = (torch.randn(6, 8, generator=generator) for _ in range(2))
    weight = 4 * torch.randn(30, 8, generator=generator)
    found = view_divergences(clean, ablated, weight, temperature=temperature, logit_cap=CAP, chunk_size=7)
    logits = [capped(states @ weight.T, CAP) / temperature for states in (clean, ablated)]
    wanted = logits_divergences(*logits)
    for name in ("kl", "jsd", "clean_entropy", "ablated_entropy"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), atol=1e-5, rtol=1e-4)
    plain = view_divergences(clean, ablated, weight, temperature=temperature)
    assert (plain.kl - wanted.kl).abs().max() > 0.1
