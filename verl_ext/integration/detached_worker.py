# SPDX-License-Identifier: Apache-2.0
"""The worker of the trainer whose rollout runs on devices of its own."""

from __future__ import annotations

from verl.experimental.separation.engine_workers import DetachActorWorker

from verl_ext.integration.worker import PerceptionWorkerMixin


class PerceptionDetachActorWorker(PerceptionWorkerMixin, DetachActorWorker):
    """verl's worker that can go back to earlier weights and forth again."""
