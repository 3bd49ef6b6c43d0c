# SPDX-License-Identifier: Apache-2.0
"""The collapse warning on synthetic curves."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.supervision.collapse import SIGNS, CollapseWatch

WINDOW = 20
NAMES = sorted({name for sign in SIGNS.values() for name in sign.metrics})


def healthy(step, noise):
    """A run that learns: more reward, less entropy, a divergence that grows slowly."""
    return {
        "perception/visual_dependency/mean": (0.10 + 0.0004 * step) * noise(0.1),
        "actor/pg_clipfrac": 0.002 * noise(0.5),
        "actor/entropy": (0.8 - 0.001 * step) * noise(0.05),
        "perception/ablated_nll": (0.9 - 0.0005 * step) * noise(0.05),
        "critic/score/mean": min(0.9, 0.4 + 0.002 * step) * noise(0.1),
    }


def collapsing(step, noise, start=60):
    """The same, until the divergence runs away, then clipping and both entropies, and last the reward."""
    metrics, late = healthy(step, noise), max(0, step - start)
    metrics["perception/visual_dependency/mean"] *= 1.0 + 0.2 * late
    metrics["actor/pg_clipfrac"] += 0.002 * max(0, late - 3)
    metrics["actor/entropy"] += 0.08 * max(0, late - 6)
    metrics["perception/ablated_nll"] += 0.1 * max(0, late - 6)
    metrics["critic/score/mean"] *= max(0.05, 1.0 - 0.03 * max(0, late - 15))
    return metrics


def warnings(curve, steps, seed=0, only=NAMES):
    generator = random.Random(seed)
    watch, found = CollapseWatch(WINDOW), {}
    for step in range(1, steps + 1):
        metrics = curve(step, lambda spread: 1.0 + generator.uniform(-spread, spread))
        _, warning = watch.update({name: metrics[name] for name in only}, step)
        if warning:
            found[step] = warning
    return found


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_is_left_in_peace(seed):
    assert warnings(healthy, 300, seed) == {}


@pytest.mark.parametrize("seed", range(20))
def test_a_collapse_is_seen_before_the_reward_is_gone(seed):
    first = min(warnings(collapsing, 120, seed))
    # The reward starts to fall at step 75 and has lost a third of itself at step 86.
    assert 61 <= first <= 86


def test_the_warning_names_signs_and_figures():
    (text, *_) = warnings(collapsing, 120).values()
    assert "the views diverge twice as much (perception/visual_dependency/mean 0." in text
    assert "updates are clipped more often (actor/pg_clipfrac" in text


def test_a_warning_comes_once_a_window():
    steps = list(warnings(collapsing, 160))
    assert len(steps) >= 2
    assert all(later - earlier >= WINDOW for earlier, later in pairwise(steps))


@pytest.mark.parametrize("name", sorted(SIGNS))
def test_one_sign_alone_is_no_warning(name):
    def curve(step, noise):
        metrics, bad = healthy(step, noise), collapsing(step, noise)
        return {**metrics, **{metric: bad[metric] for metric in SIGNS[name].metrics}}

    assert warnings(curve, 120) == {}


def test_methods_without_an_ablated_view_have_two_signs():
    only = ["actor/pg_clipfrac", "critic/score/mean"]
    assert warnings(healthy, 300, only=only) == {}
    assert warnings(collapsing, 120, only=only)
    assert warnings(collapsing, 120, only=only[:1]) == {}


def test_what_is_logged():
    watch = CollapseWatch(4)
    steps = [healthy(step, lambda _: 1.0) for step in range(3)] + [{**healthy(3, lambda _: 1.0), "actor/entropy": 9.0}]
    logged = [watch.update(metrics, step)[0] for step, metrics in enumerate(steps)]
    assert logged[:3] == [{}, {}, {}]
    assert logged[3] == {f"perception/collapse/{name}": 0.0 for name in (*SIGNS, "signs")}


def test_missing_metrics_are_not_told():
    watch = CollapseWatch(2)
    watch.update({"actor/entropy": 1.0}, 1)
    assert watch.update({"actor/entropy": 2.0}, 2) == ({}, None)


@pytest.mark.parametrize("stop", [1, 55, 75, 90])
def test_a_resumed_run_goes_on_with_the_same_window(tmp_path, stop):
    whole, first, second = CollapseWatch(20), CollapseWatch(20), CollapseWatch(20)
    steps = [collapsing(step, lambda _: 1.0) for step in range(1, 121)]
    expected = [whole.update(metrics, step) for step, metrics in enumerate(steps, start=1)]
    for step, metrics in enumerate(steps[:stop], start=1):
        first.update(metrics, step)
    first.save(tmp_path / "state.json")
    second.load(tmp_path / "state.json")
    resumed = [second.update(metrics, step) for step, metrics in enumerate(steps[stop:], start=stop + 1)]
    assert resumed == expected[stop:]
    assert any(warning for _, warning in expected)


@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, st.floats())), max_size=30), st.integers(4, 9))
def test_no_number_breaks_it(steps, window):
    watch = CollapseWatch(window)
    for step, metrics in enumerate(steps):
        logged, _ = watch.update(metrics, step)
        assert set(logged.values()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
