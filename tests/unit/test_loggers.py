# SPDX-License-Identifier: Apache-2.0
"""verl's loggers take the metrics of the perception trainers: what TensorBoard and the file were given is read back."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from verl.utils.tracking import Tracking

from verl_ext.methods.base import RolloutSignals
from verl_ext.signals.request import AblatedLogProb, Similarity
from verl_ext.supervision.collapse import PREFIX, SIGNS
from verl_ext.trainer.metrics import method_metrics, signal_metrics, weight_metrics

STEPS = (1, 2)


def logged(step):
    """Metrics of a step whose two responses of three tokens have random signals."""
    generator = torch.Generator().manual_seed(step)
    mask = torch.ones(2, 3, dtype=torch.bool)
    signals = RolloutSignals(
        response_mask=mask,
        has_image=torch.tensor([True, True]),
        group_ids=torch.tensor([0, 0]),
        old_log_prob=-torch.rand(2, 3, generator=generator),
        measured={signal: -torch.rand(2, 3, generator=generator) for signal in (AblatedLogProb(), Similarity())},
    )
    weights = torch.rand(2, 3, generator=generator)
    return {
        **signal_metrics(signals),
        **method_metrics({"pgpo": weights}, mask),
        **weight_metrics(weights, mask),
        **{f"{PREFIX}/{name}": float(step) for name in (*SIGNS, "signs")},
        "actor/perception/papo/implicit_kl": 0.25 * step,
        "val-core/mmk12_blind/acc/mean@8": 0.5 / step,
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run of two steps with three loggers at once."""
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path))
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics-0.jsonl"))
    tracking = Tracking("project", "experiment", default_backend=["console", "file", "tensorboard"])
    for step in STEPS:
        tracking.log(logged(step), step=step)
    tracking.finish()
    return tmp_path


def test_tensorboard_has_every_metric(folder):
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == set(logged(1))
    for name in logged(1):
        values = {event.step: event.value for event in events.Scalars(name)}
        assert values == pytest.approx({step: logged(step)[name] for step in STEPS}, rel=1e-6)


def test_the_file_has_every_metric(folder):
    lines = [json.loads(line) for line in (folder / "metrics-0.jsonl").read_text().splitlines()]
    assert lines == [{"step": step, "data": logged(step)} for step in STEPS]
