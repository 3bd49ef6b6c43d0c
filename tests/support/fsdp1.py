# SPDX-License-Identifier: Apache-2.0
"""verl's FSDP1 engine on the CPU, which torch lets run once two arguments are others than verl's."""

from contextlib import contextmanager

import torch
import verl.workers.engine.fsdp.transformer_impl as engines
from torch.distributed.fsdp import FullyShardedDataParallel
from verl.workers.engine.base import EngineRegistry

STRATEGY = ("actor_rollout_ref.actor.strategy=fsdp", "actor_rollout_ref.actor.fsdp_config.strategy=fsdp")


@EngineRegistry.register(model_type="language_model", backend="fsdp", device="cpu")
class FSDP1OnCPU(engines.FSDPEngineWithLMHead):
    """Every rank loads the weights, since verl's way, from the first rank, needs an accelerator."""

    def _build_module(self):
        own = engines.get_init_weight_context_manager
        engines.get_init_weight_context_manager = lambda **_: lambda: torch.device("cpu")
        try:
            return super()._build_module()
        finally:
            engines.get_init_weight_context_manager = own

    def _build_fsdp_module(self, module):
        with _arguments(sync_module_states=False, device_id=torch.device("cpu"), cpu_offload=None):
            return super()._build_fsdp_module(module)


@contextmanager
def _arguments(**changed):
    own = FullyShardedDataParallel.__init__
    FullyShardedDataParallel.__init__ = lambda self, module, **given: own(self, module, **{**given, **changed})
    try:
        yield
    finally:
        FullyShardedDataParallel.__init__ = own


def whole_parameters(module):
    """{name: copy of the whole parameter} of a model that FSDP1 or FSDP2 has sharded."""
    if not isinstance(module, FullyShardedDataParallel):
        return {name: weight.full_tensor().detach().clone() for name, weight in module.named_parameters()}
    with FullyShardedDataParallel.summon_full_params(module, writeback=False):
        return {_clean(name): weight.detach().clone() for name, weight in module.named_parameters()}


def _clean(name):
    return name.replace("_fsdp_wrapped_module.", "")
