# SPDX-License-Identifier: Apache-2.0
"""verl's own FSDP2 engine under the device "cpu". FSDP1 cannot serve: verl fixes `sync_module_states=True` there."""

from __future__ import annotations

import dataclasses

import torch
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead


@EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")
class CPUFSDPEngineWithLMHead(FSDPEngineWithLMHead):
    """FSDP2 on gloo."""

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        # A forward-only engine (the reference) would be given an offload policy with pinned memory, which only an
        # accelerator has; the parameters are in host memory anyway.
        engine_config = self.engine_config
        self.engine_config = dataclasses.replace(engine_config, forward_only=False, offload_policy=False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            self.engine_config = engine_config
