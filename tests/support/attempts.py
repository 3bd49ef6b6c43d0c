# SPDX-License-Identifier: Apache-2.0
"""Runs of main_ppo in the background, whose processes can be found, killed and cleaned up, and no others."""

import subprocess
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from support.runs import Run, training_command, usual_environment

TITLES = {
    "worker": "ray::WorkerDict",
    "server": "ray::vLLMHttpServer",
    "engine": "VLLM::EngineCore",
    "runner": "ray::TaskRunnerV1",
    "agent_loop": "AgentLoopWorker",
    "reward": "ray::RewardLoopWorker",
}
"""How the processes of a run call themselves; `driver` is main_ppo itself."""
GENERATING, SUBMITTING = "generating", "submitting"
HELD = ("server", "engine")
"""What is stopped before it gets the prompts of a step, so that it is in the middle of them when it is killed."""
START, END = 420, 180
"""Seconds that a run may take to reach its first pause, and to end after a fault."""
GRACE = 3
"""Seconds after the end of main_ppo at which processes that are left are counted."""


@dataclass
class Killed(Run):
    """What is left of a run that lost a process.

    Attributes:
        seconds: from the kill to the end of main_ppo.
        left: processes that were alive shortly after it.
    """

    seconds: float
    left: int


class Attempt:
    """A run of main_ppo that goes on in the background.

    Attributes:
        folder: of the run.
        output: the file with everything that it printed.
    """

    def __init__(self, folder, data, *overrides, number, pauses=(), steps):
        self.folder, self.pauses = folder, folder / f"pauses{number}"
        self.pauses.mkdir(parents=True)
        self.output = folder / f"output{number}.log"
        self.tag = uuid.uuid4().hex
        self._seen = {}
        command = training_command(
            folder, data, "trainer.v1.trainer_mode=perception_pausing_sync", *overrides, steps=steps
        )
        submitting = [pause.replace(GENERATING, SUBMITTING) for pause in pauses if pause.startswith(GENERATING)]
        environment = {
            **usual_environment(folder),
            "VERL_USE_EXTERNAL_MODULES": "support.pausing",
            "PAUSES": ",".join([*pauses, *submitting]),
            "PAUSE_FOLDER": str(self.pauses),
            "TEST_RUN": self.tag,
        }
        with self.output.open("wb") as output:
            self.driver = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def processes(self):
        """Everything alive that this run started, whoever its parent is now."""
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                key = (process.pid, process.create_time())
                if key not in self._seen and self._is_ours(process):
                    self._seen[key] = process
        return [process for process in self._seen.values() if _is_running(process)]

    def _is_ours(self, process):
        try:
            if process.environ().get("TEST_RUN") == self.tag:
                return True
            # A process that writes its title over its environment is known by its parents.
            parents = {parent.pid for parent in process.parents()}
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False
        return bool(parents & ({self.driver.pid} | {pid for pid, _ in self._seen}))

    def reach(self, pause):
        """Wait until the run pauses at `moment:step`."""
        mark = self.pauses / pause.replace(":", "-")
        self._wait(lambda: mark.exists() or self.driver.poll() is not None, START, f"it never came to {pause}")
        assert mark.exists(), f"it ended before {pause}: {self.text[-4000:]}"
        return mark

    def kill_at(self, moment, victim):
        """`kill -9` a process when the run comes to `moment:step`; returns what is left once the run has ended."""
        found = self._find(victim)
        if moment.startswith(GENERATING):
            submitting = self.reach(moment.replace(GENERATING, SUBMITTING))
            if victim in HELD:
                found.suspend()
            submitting.unlink()
        mark = self.reach(moment)
        found.kill()
        mark.unlink()
        killed = time.monotonic()
        ended = self.end()
        seconds = time.monotonic() - killed
        time.sleep(GRACE)
        return Killed(ended.status, ended.output, ended.folder, seconds, len(self.processes()))

    def _find(self, victim):
        if victim == "driver":
            return self.driver
        found = []

        def is_there():
            found[:] = [process for process in self.processes() if TITLES[victim] in _title(process)]
            return found or self.driver.poll() is not None

        self._wait(is_there, START, f"it has no {victim}", every=1)
        assert found, self.text[-4000:]
        return found[0]

    def all_ended(self, within):
        """Whether no process of the run is alive after so many seconds."""
        started = time.monotonic()
        while (left := self.processes()) and time.monotonic() - started < within:
            time.sleep(0.5)
        return not left

    def end(self, seconds=END):
        """Wait until main_ppo ends; returns what is left of the run."""
        self._wait(lambda: self.driver.poll() is not None, seconds, "it hangs")
        return Run(self.driver.returncode, self.text, self.folder)

    @property
    def text(self):
        return self.output.read_text(errors="replace")

    def _wait(self, condition, seconds, what, every=0.02):
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds, f"{what}: {self.text[-4000:]}"
            time.sleep(every)

    def clean_up(self):
        """Kill whatever is left; returns the titles of those that did not end by themselves."""
        left = self.processes()
        titles = [_title(process) for process in left]
        for process in left:
            if _is_running(process):
                process.kill()
        psutil.wait_procs(left, timeout=20)
        self.driver.wait(timeout=20)
        return titles


@contextmanager
def attempt(*args, **kwargs):
    """An :class:`Attempt` that leaves no process behind."""
    made = Attempt(*args, **kwargs)
    try:
        yield made
    finally:
        made.clean_up()


def _is_running(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _title(process):
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.NoSuchProcess:
        return ""
