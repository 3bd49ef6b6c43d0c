# SPDX-License-Identifier: Apache-2.0
"""The worker of the trainer whose rollout runs on devices of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map
from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.single_controller.base.decorator import Dispatch, register

from verl_ext.worker.actor_worker import PerceptionWorkerMixin


class PerceptionDetachActorWorker(PerceptionWorkerMixin, DetachActorWorker):
    """verl's worker that can go back to earlier weights and forth again."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[attr-defined]
    def save_model_to_cpu(self, n: int) -> None:
        """Save the present weights under `n`.

        verl saves them by `Tensor.cpu()`. Weights that are in host memory already (offloading, or no accelerator) would
        be saved as themselves, and change when others are put in their place.
        """
        super().save_model_to_cpu(n)
        assert self.actor is not None
        engine: Any = self.actor.engine
        self.cpu_saved_models[n] = without_live_weights(self.cpu_saved_models[n], engine.module)


def without_live_weights(saved: Any, module: Any) -> Any:
    """`saved`, nested in any way, with copies of the tensors that share memory with the parameters of `module`.

    Args:
        saved: nested dicts, lists and tuples of tensors and anything else.
        module: a module, or a list of them.
    """
    modules = module if isinstance(module, list) else [module]
    parameters = (parameter for part in modules for parameter in part.parameters())
    live = {_local(parameter).untyped_storage().data_ptr() for parameter in parameters}

    def copied(value: Any) -> Any:
        shared = isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() in live
        return value.clone() if shared else value

    return tree_map(copied, saved)


def _local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
