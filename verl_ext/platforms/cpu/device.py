# SPDX-License-Identifier: Apache-2.0
"""`torch.cpu` with the functions of `torch.cuda` that verl calls on its device module."""

from __future__ import annotations

import ctypes
import resource
from types import ModuleType
from typing import Any

import psutil
import torch

# glibc's; other C libraries have none.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


class CPUDeviceModule(ModuleType):
    """Falls back to `torch.cpu`, and compares equal to it because verl asks `get_torch_device() is/== torch.cpu`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def __eq__(self, other: object) -> bool:
        return other is self or other is torch.cpu

    def __hash__(self) -> int:
        return hash(torch.cpu)

    def get_device_name(self, device: object = None) -> str:
        return "CPU"

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        torch.set_rng_state(state)

    def empty_cache(self) -> None:
        """Give freed memory back to the machine: what C's allocator keeps of it grows with the length of a run."""
        if _malloc_trim is not None:
            _malloc_trim(0)

    def ipc_collect(self) -> None: ...

    def memory_allocated(self, device: object = None) -> int:
        return 0

    def memory_reserved(self, device: object = None) -> int:
        return 0

    def max_memory_allocated(self, device: object = None) -> int:
        """Peak resident size of this process in bytes."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def max_memory_reserved(self, device: object = None) -> int:
        """Peak resident size of this process in bytes."""
        return self.max_memory_allocated(device)

    def reset_peak_memory_stats(self, device: object = None) -> None: ...

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        """(available, total) memory of the machine in bytes."""
        memory = psutil.virtual_memory()
        return memory.available, memory.total


DEVICE_MODULE = CPUDeviceModule("verl_ext_cpu_device")
