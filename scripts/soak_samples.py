# SPDX-License-Identifier: Apache-2.0
"""What a running training holds: memory, descriptors and threads by role, files in shared memory, sizes of folders.

The processes of a run are those that have its mark in their environment, and whatever these started: a worker of Ray's
overwrites its environment with its title, but its parent does not. No other process is looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "VERL_EXT_SOAK"
MB = 2**20
SHARED_MEMORY = Path("/dev/shm")
ROLES = {
    "verl.trainer.main_ppo": "driver",
    "TaskRunner": "task runner",
    "WorkerDict": "actor worker",
    "vLLMHttpServer": "vLLM server",
    "VLLM::EngineCore": "vLLM engine core",
    "VLLM::Worker": "vLLM worker",
    "AgentLoopWorker": "agent loop",
    "GlobalRequestLoadBalancer": "load balancer",
    "RewardLoopWorker": "reward loop",
    "TransferQueueController": "TransferQueue controller",
    "SimpleStorageUnit": "TransferQueue storage",
    "raylet/raylet": "raylet",
    "gcs_server": "gcs",
    "ray::IDLE": "idle Ray workers",
}
"""Parts of a command line or of a process's title, and the role that they tell; the first that fits counts."""
TRAINING_ROLES = (
    "driver",
    "task runner",
    "actor worker",
    "vLLM server",
    "vLLM engine core",
    "vLLM worker",
    "agent loop",
)
OTHER = "Ray's helpers"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
VARYING = re.compile(rf"{UUID}|(?<=mp-)\w{{8}}|[0-9a-f]{{6,}}|\d+")


@dataclass
class Held:
    """What a role's processes hold together: memory of their own (USS), and with their share of the rest (PSS)."""

    uss_mb: float = 0.0
    pss_mb: float = 0.0
    fds: int = 0
    threads: int = 0
    processes: int = 0

    def add(self, process: psutil.Process) -> None:
        memory = process.memory_full_info()
        self.uss_mb += memory.uss / MB
        self.pss_mb += memory.pss / MB
        self.fds += process.num_fds()
        self.threads += process.num_threads()
        self.processes += 1


@dataclass
class Watcher:
    """Takes samples of the run whose processes have `mark` in their environment.

    Attributes:
        folder: of the run, whose size is told.
        temporary: the run's own temporary folder, in which Ray keeps its sessions.
        makers: the roles that had a file of shared memory open, by the file's name.
        before: files that were in shared memory when the watch began.
    """

    mark: str
    folder: Path
    temporary: Path
    makers: dict[str, set[str]] = field(default_factory=dict)
    before: frozenset[str] = field(default_factory=lambda: frozenset(_names(SHARED_MEMORY)))

    def processes(self) -> list[psutil.Process]:
        """The run's processes that are alive."""
        found = {process.pid: process for process in psutil.process_iter() if self._marked(process)}
        for process in list(found.values()):
            with suppress(psutil.Error):
                found.update({child.pid: child for child in process.children(recursive=True)})
        return [process for process in found.values() if process.is_running()]

    def _marked(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return process.environ().get(MARK) == self.mark
        return False

    def sample(self) -> dict[str, object]:
        """Everything that is watched, now; sizes in MB."""
        roles: dict[str, Held] = {}
        for process in self.processes():
            with suppress(psutil.Error):
                name = role(process.cmdline())
                held = roles.get(name, Held())
                held.add(process)
                roles[name] = held
                self._note_shared_memory(process.pid, name)
        return {
            "roles": {name: vars(held) for name, held in sorted(roles.items())},
            "shared_memory_files": len(self.shared_memory()),
            "temporary_files": sum(1 for _ in left_files(self.temporary)),
            "run_mb": size_mb(self.folder),
            "ray_session_mb": size_mb(self.temporary / "ray"),
        }

    def _note_shared_memory(self, pid: int, name: str) -> None:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                _, found, path = line.partition(f"{SHARED_MEMORY}/")
                if found:
                    self.makers.setdefault(path.removesuffix(" (deleted)"), set()).add(name)

    def shared_memory(self) -> list[str]:
        """Files in shared memory that appeared since the watch began and that a process of this run had open."""
        return sorted((_names(SHARED_MEMORY) - self.before) & self.makers.keys())

    def strangers(self) -> int:
        """Files in shared memory that appeared meanwhile and that no process of this run was seen with."""
        return len(_names(SHARED_MEMORY) - self.before - self.makers.keys())


def role(command: Iterable[str]) -> str:
    """The role of a process with such a command line."""
    line = " ".join(command)
    return next((name for part, name in ROLES.items() if part in line), OTHER)


def left_files(temporary: Path) -> Iterator[str]:
    """Names of what lies in a temporary folder, Ray's sessions aside."""
    return (path.name for path in temporary.iterdir() if path.name != "ray")


def pattern(name: str) -> str:
    """A file's name with every UUID, number and random word in it replaced by `*`."""
    return VARYING.sub("*", name)


def size_mb(folder: Path) -> float:
    """Size of the files in a folder, links not followed; 0 if there is none."""
    total = 0
    # Path.rglob fails where a folder goes away meanwhile.
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total / MB


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
