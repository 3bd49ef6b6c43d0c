# SPDX-License-Identifier: Apache-2.0
import math
import pickle
import statistics

import pytest
import torch

from verl_ext.supervision.rollout_agreement import RolloutMismatchError, log_prob_correlation, require_agreement


def test_correlation_of_the_valid_tokens_only():
    generator = torch.Generator().manual_seed(0)
    rollout = -torch.rand(3, 6, generator=generator)
    actor = rollout + 0.3 * torch.rand(3, 6, generator=generator)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]])
    pairs = [(rollout[i, j].item(), actor[i, j].item()) for i in range(3) for j in range(6) if mask[i, j]]
    expected = statistics.correlation(*zip(*pairs, strict=True))
    assert log_prob_correlation(rollout, actor, mask) == pytest.approx(expected, abs=1e-12)
    actor[mask == 0] = math.nan
    assert log_prob_correlation(rollout, actor, mask) == pytest.approx(expected, abs=1e-12)


def test_identical_and_opposite():
    x = -torch.rand(2, 5, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 5)
    assert log_prob_correlation(x, x, mask) == pytest.approx(1.0)
    assert log_prob_correlation(x, -x, mask) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("rollout", "actor", "expected"),
    [
        ([], [], 1.0),
        ([-0.5], [-0.5004], 1.0),
        ([-0.5], [-0.6], 0.0),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 1.0),
        ([0.0, 0.0, 0.0], [0.0, -1.0, 0.0], 0.0),
        ([-0.1, -0.2], [-3.0, -3.0], 0.0),
    ],
)
def test_where_the_correlation_is_undefined(rollout, actor, expected):
    rollout, actor = torch.tensor([rollout]), torch.tensor([actor])
    assert log_prob_correlation(rollout, actor, torch.ones_like(rollout)) == expected


def test_a_number_that_is_not_finite_is_not_agreement():
    x = torch.tensor([[-0.1, -0.2, -0.3]])
    y = torch.tensor([[-0.1, math.nan, -0.3]])
    assert math.isnan(log_prob_correlation(x, y, torch.ones(1, 3)))


@pytest.mark.parametrize("correlation", [0.9499, 0.0, -1.0, math.nan])
def test_disagreement_stops_the_run(correlation):
    with pytest.raises(RolloutMismatchError) as caught:
        require_agreement(correlation, 0.95, step=12)
    message = str(caught.value)
    assert message.startswith(f"step 12: the correlation of rollout and actor log-probabilities is {correlation:.4f}")
    assert "perception.min_rollout_correlation=0.95" in message
    assert "actor_rollout_ref.rollout.load_format=auto" in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


@pytest.mark.parametrize(("correlation", "bound"), [(0.95, 0.95), (1.0, 0.95), (0.1, None), (math.nan, None)])
def test_agreement_or_no_bound_goes_on(correlation, bound):
    require_agreement(correlation, bound, step=1)
