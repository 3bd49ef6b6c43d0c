# SPDX-License-Identifier: Apache-2.0
"""verl's passes on a worker whose actor has a frozen vision tower, the features of which they reuse."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker

from verl_ext.configuration.section import parse
from verl_ext.models.family import Family
from verl_ext.models.frozen_tower import has_adapter
from verl_ext.vocabulary import STEP
from verl_ext.worker.frozen_tower import FrozenTowerWorker, freezes_tower, leave_tower_without_adapter
from verl_ext.worker.tower_reuse import OLD_LOG_PROBS, REFERENCE, UPDATE, TowerReuse, same_everywhere, tower_weights

if TYPE_CHECKING:
    Base = ActorRolloutRefWorker
else:
    Base = object  # verl's worker comes after the mixin


class TowerPassesMixin(Base):
    """Put before one of verl's actor workers; without `actor.freeze_vision_tower` it changes nothing.

    Attributes:
        family: of the model, known before `init_model` of this class is called.
    """

    family: Family
    _tower: TowerReuse | None = None
    _step: int | None = None

    def init_model(self) -> None:
        """verl's models, the actor's with a frozen tower."""
        frozen = freezes_tower(self.config)
        if frozen:
            leave_tower_without_adapter(self.config, self.family)
            self.actor_worker_cls = FrozenTowerWorker
        super().init_model()
        if frozen and self.actor is not None:
            self._tower = TowerReuse(parse(self.config.perception).options.tower_cache_gb)
            self._tower.forget(self._without())

    def compute_log_prob(self, data: TensorDict) -> TensorDict | None:
        """verl's pass of the actor, or of a LoRA actor's reference."""
        self._begin(tu.get(data, STEP))
        reference = tu.get(data, "no_lora_adapter", default=False)
        with self._reusing(self.actor, data, REFERENCE if reference else OLD_LOG_PROBS):
            return super().compute_log_prob(data)

    def compute_ref_log_prob(self, data: TensorDict) -> TensorDict | None:
        """verl's pass of the reference, whose tower has the weights that the actor's is frozen at."""
        with self._reusing(self.ref, data, REFERENCE):
            return super().compute_ref_log_prob(data)

    def update_actor(self, data: TensorDict) -> TensorDict | None:
        """verl's update, all mini-batches and epochs; the step's features are let go of behind it."""
        with self._reusing(self.actor, data, UPDATE):
            output = super().update_actor(data)
        if self._tower:
            self._tower.release()
        return output

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[attr-defined]
    def load_checkpoint(
        self, local_path: str, hdfs_path: str | None = None, del_local_after_load: bool = False
    ) -> None:
        """verl's; if it brings another tower, that of a run that trained it, the reference has one of its own."""
        if self._tower is None:
            super().load_checkpoint(local_path, hdfs_path, del_local_after_load)
            return
        assert self.actor is not None
        before = tower_weights(self.actor.engine)
        super().load_checkpoint(local_path, hdfs_path, del_local_after_load)
        same = same_everywhere(before, tower_weights(self.actor.engine))
        self._tower.forget(self._without() if same else {REFERENCE})

    def _begin(self, step: int | None) -> None:
        """Features of a step without an update are let go of when the next one begins."""
        if self._tower and step is not None and step != self._step:
            self._tower.release()
            self._step = step

    def _without(self) -> set[str]:
        """Passes whose tower is not the actor's: without its adapter, if a given one reaches into it."""
        assert self.actor is not None
        engine: Any = self.actor.engine
        return {REFERENCE} if has_adapter(engine.module) else set()

    def _reusing(self, worker: Any, data: TensorDict, kind: str) -> AbstractContextManager[None]:
        return self._tower.over(worker.engine, data, kind) if self._tower else nullcontext()
