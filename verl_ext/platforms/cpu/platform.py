# SPDX-License-Identifier: Apache-2.0
"""verl's platform interface for a machine without an accelerator.

Each rank takes one unit of Ray's logical "GPU" resource (`ray_kwargs.ray_init.num_gpus`), because verl reads the
ids of its accelerators back from Ray under that name. Nothing is placed on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

from verl_ext.platforms.cpu.device import DEVICE_MODULE


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """Answers verl's questions about the device; everything that only an accelerator has is a no-op."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module: ModuleType = DEVICE_MODULE

    def is_available(self) -> bool:
        return True

    def current_device(self) -> torch.device:  # type: ignore[override]
        """A device, not verl's usual index: verl passes it to `Tensor.to`, where an index would mean CUDA."""
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None:
        DEVICE_MODULE.empty_cache()

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        """False: weights reach the rollout through shared memory instead."""
        return False

    def cudart(self) -> Any:
        return None
