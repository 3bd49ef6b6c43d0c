# SPDX-License-Identifier: Apache-2.0
"""A run that stops says where and why; one whose processes have died does stop; and what it saved it also logs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from verl_ext.logs import get_logger
from verl_ext.supervision.process_watch import ActorLook, EngineLook, Look, Watch
from verl_ext.supervision.stop_reason import TrainingStopped, stopped

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer as Base
else:
    Base = object  # verl's trainer comes after the mixin
logger = get_logger(__name__)
SERVER_MANAGERS = ("llm_server_manager", "standalone_server_manager")
TRAIN = "train"
"""verl's name of the partition of TransferQueue that it trains on."""
LONGEST_SAVE = 1800.0
"""Seconds that a checkpoint may take once something has died."""
SAVING, SAVED = ", while its checkpoint was written", ", after its checkpoint was written"


class WatchedRun(Base):
    """Put before one of verl's v1 trainers.

    verl polls TransferQueue for responses until there are enough, and those of an agent-loop worker that died never
    come; a worker that sends weights to vLLM waits for an engine that died. Without this both would last for ever.
    """

    _watch: Watch | None = None
    _where = ""
    _trained: tuple[KVBatchMeta, dict[str, Any]] | None = None
    _computed = False
    _step_began = 0.0

    def fit(self, agent_loop_manager: Any) -> None:
        """Train.

        Raises:
            TrainingStopped: something ended the run; chained to what it was.
        """
        self._watch = Watch(self._looks(agent_loop_manager), self._end_workers)
        self._watch.start()
        try:
            super().fit(agent_loop_manager)
        except Exception as error:
            died = self._watch.look_closely()
            self._watch.over()
            self._log_saved_step()
            raise TrainingStopped(stopped(died or error, self.config, where=self._place())) from error
        finally:
            self._watch.over()

    def _looks(self, agent_loop_manager: Any) -> list[Look]:
        workers = getattr(agent_loop_manager, "agent_loop_workers", None)
        if workers is None:
            kind = type(agent_loop_manager).__name__
            logger.warning("%s has no agent_loop_workers: if one of its workers dies, nothing will notice", kind)
        managers = [some for name in SERVER_MANAGERS if (some := getattr(self, name, None))]
        servers = [server for some in managers for server in some.server_handles]
        rewarding = self.reward_loop_manager.reward_loop_workers
        # First, since Ray knows why an actor died: because the machine's memory ran out, for instance.
        looks: list[Look] = [ActorLook([*(workers or []), *servers, *rewarding])]
        if self.config.actor_rollout_ref.rollout.name == "vllm":
            looks.append(EngineLook([address for some in managers for address in some.get_addresses()]))
        return looks

    def _end_workers(self) -> None:
        """Make verl's calls to the workers fail, but not before they have written a checkpoint."""
        latest = time.monotonic() + LONGEST_SAVE
        while self._where == SAVING and time.monotonic() < latest:
            time.sleep(1)
        for worker in self.actor_rollout_wg.workers:
            ray.kill(worker)

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> KVBatchMeta:
        batch = super().step(metrics, timing_raw)
        self._trained = batch, metrics
        return batch

    def _save_checkpoint(self) -> None:
        self._where = SAVING
        super()._save_checkpoint()
        self._where = SAVED

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float], global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        self._computed = True

    def _finished(self) -> bool:
        """Whether the last step has been logged, and only files remain to be written."""
        return bool(self.global_steps > self.total_training_steps)

    def _place(self) -> str:
        if self._finished():
            return f"after its last step, {self.total_training_steps}"
        return f"in step {self.global_steps}{self._where}"

    def _log_saved_step(self) -> None:
        """Log the metrics of a step that will not be repeated, because its checkpoint is there.

        verl logs them after it has sent the weights to vLLM, which is where the death of an engine ends a step.
        """
        if self._where != SAVED or self._trained is None or self._finished():
            return
        batch, metrics = self._trained
        try:
            if not self._computed:
                timing = {"step": time.monotonic() - self._step_began, **self.timing_raw}
                epoch = (self.global_steps - 1) // self.steps_per_epoch
                self._compute_metrics(batch, metrics, timing, global_steps=self.global_steps, epoch=epoch)
            self.logger.log(data=metrics, step=self.global_steps)
        except Exception:
            logger.exception("step %d is saved, but its metrics could not be logged", self.global_steps)

    def on_step_begin(self) -> None:
        self._where, self._trained, self._computed, self._step_began = "", None, False, time.monotonic()
        super().on_step_begin()

    def on_sample_end(self) -> None:
        """Repeat a step of which an engine's death took some prompts; say how many failed for other reasons.

        verl trains on what is left.
        """
        if failed := getattr(self.replay_buffer, "failure_keys", {}).get(TRAIN):
            if self._watch is not None and (died := self._watch.look()):
                raise died
            logger.warning(
                "step %d: the rollout failed for %d prompts, and verl goes on without them; the errors above say why "
                "(longer than data.max_prompt_length, for instance)",
                self.global_steps,
                len(failed),
            )
        super().on_sample_end()

    def _build_replay_buffer(self) -> ReplayBuffer:
        buffer = super()._build_replay_buffer()
        if isinstance(buffer, ReplayBuffer):
            buffer._wait_for_next_poll = self._watched(buffer._wait_for_next_poll)  # type: ignore[method-assign]
        else:
            name = type(buffer).__qualname__
            logger.warning("%s is not verl's ReplayBuffer: its waiting is not ended when a process has died", name)
        return buffer

    def _watched(self, wait: Callable[..., float]) -> Callable[..., float]:
        """verl's pause between two polls, which ends when something has died."""

        def wait_for_next_poll(*args: Any, **kwargs: Any) -> float:
            if self._watch is not None and self._watch.found is not None:
                raise self._watch.found
            return wait(*args, **kwargs)

        return wait_for_next_poll
