# SPDX-License-Identifier: Apache-2.0
"""A run that stops says where and why, and one whose processes died while it waits for responses does stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import ray
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from verl_ext.integration.stopped import TrainingStopped, stopped

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer as Base
else:
    Base = object  # verl's trainer comes after the mixin
SECONDS_BETWEEN_LOOKS = 5.0


class LifeSigns:
    """Notices that a Ray actor has died, without waiting for one that is busy.

    Args:
        actors: handles of those that answer between their tasks.
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        self._asked = [(actor, actor.__ray_ready__.remote()) for actor in actors]

    def look(self) -> None:
        """Ask again those that have answered.

        Raises:
            ray.exceptions.RayActorError: one has died; names its class and process.
        """
        for at, (actor, answer) in enumerate(self._asked):
            if ray.wait([answer], timeout=0)[0]:
                ray.get(answer)
                self._asked[at] = (actor, actor.__ray_ready__.remote())


class WatchedRun(Base):
    """Put before one of verl's v1 trainers.

    verl polls TransferQueue for responses until there are enough. Those of an agent-loop worker that died never come,
    and without this verl would wait for ever.
    """

    _signs: LifeSigns | None = None
    _looked = 0.0
    _where = ""

    def fit(self, agent_loop_manager: Any) -> None:
        """Train.

        Raises:
            TrainingStopped: something ended the run; chained to what it was.
        """
        self._signs = LifeSigns(getattr(agent_loop_manager, "agent_loop_workers", []))
        try:
            super().fit(agent_loop_manager)
        except Exception as error:
            where = f"in step {self.global_steps}{self._where}"
            raise TrainingStopped(stopped(error, self.config, where=where)) from error

    def _save_checkpoint(self) -> None:
        self._where = ", while its checkpoint was written"
        super()._save_checkpoint()
        self._where = ", after its checkpoint was written"

    def on_step_begin(self) -> None:
        self._where = ""
        super().on_step_begin()

    def _build_replay_buffer(self) -> ReplayBuffer:
        buffer = super()._build_replay_buffer()
        buffer._wait_for_next_poll = self._watching(buffer._wait_for_next_poll)
        return buffer

    def _watching(self, wait: Callable[..., float]) -> Callable[..., float]:
        def watched(*args: Any, **kwargs: Any) -> float:
            if self._signs is not None and time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
                self._looked = time.monotonic()
                self._signs.look()
            return wait(*args, **kwargs)

        return watched
