# SPDX-License-Identifier: Apache-2.0
"""The vectors in tests/golden/data, their tolerances, and the part of the official losses that is not ours."""

import json

import numpy as np
import torch

from support.tiny import ROOT

DATA = ROOT / "tests" / "golden" / "data"
WEIGHT = {"atol": 1e-4, "rtol": 0.0}
LOSS = {"atol": 3e-6, "rtol": 3e-5}
GRADIENT = {"atol": 2e-7, "rtol": 2e-4}


def load(name):
    """The arrays as tensors, and the configuration."""
    arrays = np.load(DATA / f"{name}.npz", allow_pickle=False)
    return {key: torch.from_numpy(arrays[key]) for key in arrays}, json.loads((DATA / f"{name}.json").read_text())


def token_mean(values, mask):
    return (values * mask).sum() / (mask.sum() + 1e-8)


def dual_clip(log_prob, old, advantages, *, low=0.2, high, dual=3.0):
    """(B, T) PPO loss with a dual clip, before averaging."""
    log_ratio = (log_prob - old).clamp(-20.0, 20.0)
    bounded = log_ratio.clamp(float(np.log(1.0 - low)), float(np.log(1.0 + high)))
    loss = torch.maximum(-advantages * log_ratio.exp(), -advantages * bounded.exp())
    return torch.where(advantages < 0, torch.minimum(loss, -advantages * dual), loss)
