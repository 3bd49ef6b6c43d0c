# SPDX-License-Identifier: Apache-2.0
"""Why a training run stopped, and how it goes on, in one line that a user understands."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from verl_ext.supervision.checkpoints import TRACKER, last_step

SERVER = "vLLMHttpServer"
ACTORS = {
    "WorkerDict": "a worker of the actor",
    SERVER: "the vLLM server",
    "AgentLoopWorker": "an agent-loop worker",
    "RewardLoopWorker": "a reward worker",
    "TaskRunner": "the training process (verl's TaskRunner)",
}
"""What the classes of verl's Ray actors are to a user."""
DEATHS = ("ActorDiedError", "RayActorError", "ActorUnavailableError")
"""Ray's errors of an actor whose process is gone, by name: this module is imported where Ray need not be."""
OUT_OF_MEMORY = "OutOfMemoryError"
"""Of Ray; torch's error of the same name is of a device, and says so itself."""
CLASS_NAME = re.compile(r"class_name: (\S+)")
PROCESS = re.compile(r"pid: (\d+)")
DISK_ERRORS = ("No space left on device", "Disk quota exceeded", "file write failed", "iostream", "inline_container")
"""What the system says of a full disk, and what torch's writer makes of it."""
BEGAN = time.time()
"""When this process loaded the module, before a run could save anything."""
LONGEST = 300
"""Characters of an error that is quoted."""


class ProcessDied(RuntimeError):
    """A process that a run cannot do without is gone; the message says which."""


class TrainingStopped(RuntimeError):
    """A step could not be finished; chained to what went wrong. The message says where, why, and how to go on."""


def stopped(error: BaseException, config: DictConfig, *, where: str) -> str:
    """One sentence: where a run stopped, why, and how to go on.

    Args:
        error: what ended it, perhaps from another process.
        config: of the run.
        where: such as "step 3".
    """
    folder = Path(config.trainer.default_local_dir)
    return f"training stopped{' ' if where else ''}{where}: {_why(error, folder)}. {_how_to_go_on(config, folder)}"


def last_words(error: BaseException, config: DictConfig) -> str:
    """What the command says last of an error that ended it: what the training process said of it, if it could."""
    said = next((str(each) for each in _chain(error) if type(each) is TrainingStopped), None)
    died = type(error).__name__ in DEATHS
    return said or stopped(error, config, where="" if died else "before the first step")


def _why(error: BaseException, folder: Path) -> str:
    chain = list(_chain(error))
    for each in chain:
        text = str(each)
        if isinstance(each, ProcessDied):
            return text
        if type(each).__name__ in DEATHS:
            return _last_line(text) if "creation task" in text else _death(text)
        if type(each).__name__ == OUT_OF_MEMORY and type(each).__module__.startswith("ray."):
            return f"Ray killed a process of the run because the machine ran out of memory ({_first_line(text)})"
        if "EngineDeadError" in type(each).__name__ or "EngineDeadError" in text:
            return "vLLM's engine process died; its own lines above may say why (killed for its memory, for instance)"
    first, text = chain[-1], str(chain[-1])
    if any(sign in text for sign in DISK_ERRORS):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        return f"a file could not be written ({_first_line(text)}); {free / 2**30:.2f} GiB are free under {folder}"
    return f"{type(first).__name__}: {_first_line(text)}"


def _death(text: str) -> str:
    name, process = CLASS_NAME.search(text), PROCESS.search(text)
    who = next((words for part, words in ACTORS.items() if name and part in name[1]), "a process of the run")
    why = " (it ends itself where its engine process died)" if name and SERVER in name[1] else ""
    return f"{who}{f' (process {process[1]})' if process else ''} died{why}; Ray's lines above say how it ended"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from; for an error of another process Ray keeps that as `cause`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or getattr(error, "cause", None)


def _first_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
    return line if len(line) <= LONGEST else line[:LONGEST] + "..."


def _last_line(text: str) -> str:
    return _first_line("\n".join(reversed(text.splitlines())))


def _how_to_go_on(config: DictConfig, folder: Path) -> str:
    step, mode = last_step(folder), OmegaConf.select(config, "trainer.resume_mode")
    # What lies there from an earlier run is not where a run goes on that did not want it.
    foreign = mode == "disable" and step is not None and (folder / TRACKER).stat().st_mtime < BEGAN
    if step is None or foreign:
        return f"This run has no checkpoint in {folder} yet: the same command begins anew"
    command = "the same command" if mode == "auto" else "the same command with trainer.resume_mode=auto"
    return f"The checkpoint of step {step} is there: {command} continues with step {step + 1}"
