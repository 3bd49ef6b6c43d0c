# SPDX-License-Identifier: Apache-2.0
"""The metrics against plain Python."""

import math

import pytest
import torch

from verl_ext.methods.base import RolloutSignals
from verl_ext.signals.request import AblatedLogProb, Similarity
from verl_ext.trainer.metrics import method_metrics, shared_metrics, signal_metrics, weight_metrics

LENGTHS = [7, 3, 5, 9, 0]
HAS_IMAGE = [True, False, True, True, True]


def measured(ablated=True, has_image=HAS_IMAGE):
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(len(LENGTHS), 9, generator=generator)
    return RolloutSignals(
        response_mask=torch.arange(9) < torch.tensor(LENGTHS)[:, None],
        has_image=torch.tensor(has_image),
        group_ids=torch.zeros(len(LENGTHS), dtype=torch.long),
        old_log_prob=old,
        measured={AblatedLogProb(): old - 2 * torch.rand(len(LENGTHS), 9, generator=generator)} if ablated else {},
    )


def counted_tokens(signals):
    """(old, ablated) of every valid token of the rows with an image."""
    return [
        (signals.old_log_prob[i, j].item(), signals[AblatedLogProb()][i, j].item())
        for i, length in enumerate(LENGTHS)
        for j in range(length)
        if signals.has_image[i]
    ]


def test_signal_metrics():
    signals = measured()
    tokens = counted_tokens(signals)
    assert len(tokens) == 21
    k3 = sorted(math.exp(ablated - old) - (ablated - old) - 1 for old, ablated in tokens)
    assert signal_metrics(signals) == pytest.approx(
        {
            "perception/image_rows": 0.8,
            "perception/visual_dependency/mean": sum(k3) / 21,
            "perception/visual_dependency/p95": k3[20 - 1],
            "perception/visual_dependency/top20_share": sum(k3[-4:]) / sum(k3),
            "perception/ablated_nll": -sum(ablated for _, ablated in tokens) / 21,
        },
        rel=1e-5,
    )


def test_tokens_without_an_image_and_padding_change_nothing():
    signals = measured()
    expected = signal_metrics(signals)
    uncounted = ~(signals.response_mask & signals.has_image[:, None])
    signals.old_log_prob[uncounted] = math.nan
    signals[AblatedLogProb()][uncounted] = math.nan
    assert signal_metrics(signals) == expected


def test_without_signals_only_the_images_are_counted():
    assert signal_metrics(measured(ablated=False)) == {"perception/image_rows": pytest.approx(0.8)}
    assert signal_metrics(measured(has_image=[False] * 5)) == {"perception/image_rows": 0.0}


def test_no_dependency_at_all():
    signals = measured()
    signals[AblatedLogProb()].copy_(signals.old_log_prob)
    metrics = signal_metrics(signals)
    assert metrics["perception/visual_dependency/mean"] == 0.0
    assert metrics["perception/visual_dependency/top20_share"] == 0.2


def test_p95_is_the_smallest_value_that_19_of_20_tokens_do_not_exceed():
    for count in (1, 2, 19, 20, 21, 40, 100, 101):
        gaps = torch.arange(count, dtype=torch.float32)[None] / count
        signals = RolloutSignals(
            response_mask=torch.ones(1, count, dtype=torch.bool),
            has_image=torch.tensor([True]),
            group_ids=torch.zeros(1, dtype=torch.long),
            old_log_prob=torch.zeros(1, count),
            measured={AblatedLogProb(): -gaps},
        )
        gap = ((95 * count + 99) // 100 - 1) / count
        expected = math.exp(-gap) + gap - 1
        assert signal_metrics(signals)["perception/visual_dependency/p95"] == pytest.approx(expected, abs=1e-6), count


def test_weight_metrics():
    weights = torch.tensor([[0.5, 2.0, 9.0], [1.5, 9.0, 9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert weight_metrics(weights, mask) == pytest.approx(
        {
            "perception/token_weight/max": 2.0,
            "perception/token_weight/effective_fraction": 4.0**2 / (3 * (0.25 + 4.0 + 2.25)),
        }
    )


@pytest.mark.parametrize(("row", "fraction"), [([1, 1, 1, 1], 1.0), ([0, 0, 3, 0], 0.25), ([0, 0, 0, 0], 0.0)])
def test_effective_fraction(row, fraction):
    metrics = weight_metrics(torch.tensor([row], dtype=torch.float32), torch.ones(1, 4, dtype=torch.bool))
    assert metrics["perception/token_weight/effective_fraction"] == pytest.approx(fraction)


def test_no_valid_token_has_no_weight():
    assert weight_metrics(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)) == {}


def test_other_views_and_other_signals_have_their_own_names():
    signals = measured()
    similarity = Similarity("cosine", "last", "prototype")
    signals.measured[AblatedLogProb("noised")] = signals.old_log_prob - 1.0
    signals.measured[similarity] = torch.full_like(signals.old_log_prob, 0.25)
    metrics = signal_metrics(signals)
    assert metrics["perception/visual_dependency_noised/mean"] == pytest.approx(math.exp(-1.0))
    assert metrics["perception/ablated_nll_noised"] == pytest.approx(1 + metrics["perception/ablated_nll"], abs=2.0)
    assert metrics["perception/visual_similarity_cosine_last_prototype/mean"] == 0.25
    assert metrics["perception/visual_similarity_cosine_last_prototype/p95"] == 0.25
    assert metrics["perception/visual_similarity_cosine_last_prototype/top20_share"] == pytest.approx(4 / 21)


def test_method_metrics():
    mask = torch.tensor([[True, True, False], [True, True, False]])
    weights = {"one": torch.tensor([[0.0, 2.0, 9.0], [1.0, 0.0, 9.0]]), "two": torch.ones(2, 3)}
    metrics = method_metrics(weights, mask)
    assert {name: value for name, value in metrics.items() if "/one/" in name} == {
        "perception/one/weight_mean": 0.75,
        "perception/one/weight_min": 0.0,
        "perception/one/weight_max": 2.0,
        "perception/one/weight_zero_fraction": 0.5,
    }
    assert metrics["perception/two/weight_mean"] == 1.0
    assert method_metrics(weights, torch.zeros_like(mask)) == {}


def test_shared_metrics():
    counts = {"actor/perception/shared_tokens_saved": 30.0, "actor/perception/prompt_tokens": 40.0}
    metrics = {**counts, "actor/pg_loss": 0.5}
    assert shared_metrics(metrics) == {
        "perception/shared_tokens_saved": 30.0,
        "perception/shared_prompt_fraction": 0.75,
    }
    assert metrics == {"actor/pg_loss": 0.5}
    nothing = {"perception/shared_tokens_saved": 0.0, "perception/shared_prompt_fraction": 0.0}
    assert shared_metrics(metrics) == nothing
