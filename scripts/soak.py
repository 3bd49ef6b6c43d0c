# SPDX-License-Identifier: Apache-2.0
"""The quick start's run for many steps, with checkpoints, validation and dumps, watched for what grows or stays.

Called by soak.sh. Arguments behind the options are verl overrides. A stopped run goes on from its last checkpoint when
the same command is given again; its samples go on in the same file. The figures of a finished one are only told again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import quickstart
from soak_report import figures, markdown
from soak_samples import MARK, Watcher, left_files, pattern

from verl_ext.data.easy_vqa import write_easy_vqa
from verl_ext.platforms.cpu.environment import ENVIRONMENT
from verl_ext.report.metrics_file import Step, read_steps

RUN = quickstart.ROOT / "runs" / "soak"
SETTLE = 60.0
"""Seconds that a run's processes have to end after it."""
LONGEST_END = 300.0
"""Seconds that main_ppo has to end once it was asked to, or has run its steps."""
STEPS_OF_AN_EPOCH = quickstart.STEPS // 3


@dataclass(frozen=True)
class Plan:
    """How often things happen, in steps; and seconds between samples."""

    steps: int
    checkpoint: int = 25
    validation: int = 100
    record: int = 10
    seconds: float = 15.0


def light(steps: int) -> Plan:
    """Everything that a soak does, within few steps."""
    return Plan(steps, checkpoint=max(1, steps // 3), validation=max(1, steps // 2), record=2, seconds=2.0)


@dataclass(frozen=True)
class Files:
    """Where a soak writes."""

    folder: Path

    @property
    def samples(self) -> Path:
        return self.folder / "samples.jsonl"

    @property
    def ends(self) -> Path:
        return self.folder / "ends.jsonl"

    def steps(self) -> list[Step]:
        return read_steps(sorted(self.folder.glob("metrics*.jsonl")))

    def last_step(self) -> int:
        steps = self.steps()
        return steps[-1][0] if steps else 0

    def new_metrics(self) -> Path:
        return self.folder / f"metrics{len(list(self.folder.glob('metrics*.jsonl'))):03}.jsonl"


def overrides(plan: Plan, folder: Path) -> list[str]:
    """The quick start's, then what a soak does otherwise: later ones win."""
    return [
        *quickstart.OVERRIDES,
        # Told in the report instead: a soak that stops at a drift says less about it.
        "perception.min_rollout_correlation=null",
        f"perception.record_every={plan.record}",
        "data.val_max_samples=64",
        f"trainer.total_training_steps={plan.steps}",
        f"trainer.total_epochs={plan.steps // STEPS_OF_AN_EPOCH + 1}",
        f"trainer.save_freq={plan.checkpoint}",
        "trainer.max_actor_ckpt_to_keep=2",
        f"trainer.test_freq={plan.validation}",
        "trainer.experiment_name=soak",
        f"trainer.rollout_data_dir={folder / 'rollouts'}",
        f"trainer.default_local_dir={folder}",
        f"hydra.run.dir={folder / 'hydra'}",
    ]


@click.command()
@click.option("--steps", default=500, show_default=True, help="Training steps of the whole run.")
@click.option("--folder", default=RUN, type=click.Path(path_type=Path), show_default=True, help="Folder of the run.")
@click.option("--light", "is_light", is_flag=True, help="Checkpoints, validation, dumps and samples much more often.")
@click.option("--report-only", is_flag=True, help="Tell the figures of what has been run so far.")
@click.argument("extra", nargs=-1)
def main(steps: int, folder: Path, is_light: bool, report_only: bool, extra: tuple[str, ...]) -> None:
    """Train for many steps, watch, and report to FOLDER/report.md and report.json."""
    files = Files(folder.absolute())
    status = 0
    if not report_only and files.last_step() < steps:
        status = train(light(steps) if is_light else Plan(steps), files, extra)
    if not files.samples.exists():
        raise click.ClickException(f"{files.samples} is not there: nothing has been run in {files.folder}")
    print(report(files))
    sys.exit(status)


def train(plan: Plan, files: Files, extra: Iterable[str]) -> int:
    """Run main_ppo once, from the last checkpoint if there is one; its exit status."""
    if not (quickstart.DATA / "README.md").exists():
        write_easy_vqa(quickstart.DATA, questions="color", val_size=quickstart.QUESTIONS)
    files.folder.mkdir(parents=True, exist_ok=True)
    # Of its own, so that whatever is left in it is this run's. A short name, for the sockets in it.
    temporary = Path(tempfile.mkdtemp(prefix="soak"))
    watcher = Watcher(uuid.uuid4().hex, files.folder, temporary)
    log = files.folder / "train.log"
    print(f"soak: to step {plan.steps}, from about step {files.last_step()}. Log: {log}", flush=True)
    failed = False
    try:
        with started([*overrides(plan, files.folder), *extra], watcher, files.new_metrics(), log) as process:
            watch(process, watcher, files, plan.seconds)
        failed = process.returncode != 0
    finally:
        note_end(watcher, files)
        if not failed:
            shutil.rmtree(temporary, ignore_errors=True)
    if failed:
        print(f"soak: main_ppo failed with status {process.returncode}. Log: {log}; Ray's: {temporary / 'ray'}")
    return process.returncode


@contextmanager
def started(arguments: list[str], watcher: Watcher, metrics: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """main_ppo, marked, in a temporary folder of its own; asked to stop if this process is."""
    environment = {
        **os.environ,
        **ENVIRONMENT,
        MARK: watcher.mark,
        "TMPDIR": str(watcher.temporary),
        "VERL_FILE_LOGGER_PATH": str(metrics),
    }
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *arguments]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=quickstart.ROOT
        )
        try:
            yield process
        except KeyboardInterrupt:
            process.terminate()
            raise SystemExit("stopped; run the same command to continue from the last checkpoint") from None
        finally:
            _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=LONGEST_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def watch(process: subprocess.Popen[bytes], watcher: Watcher, files: Files, seconds: float) -> None:
    """Append a sample to the file every so many seconds, until the process has ended."""
    begun = time.time()
    with files.samples.open("a") as output:
        while process.poll() is None:
            sample = {"attempt": watcher.mark, "seconds": time.time() - begun, "step": files.last_step()}
            output.write(json.dumps({**sample, **watcher.sample()}) + "\n")
            output.flush()
            time.sleep(seconds)


def note_end(watcher: Watcher, files: Files) -> None:
    """Write down what the run left, once its processes have had time to go."""
    deadline = time.time() + SETTLE
    while watcher.processes() and time.time() < deadline:
        time.sleep(1)
    shared = watcher.shared_memory()
    end = {
        "attempt": watcher.mark,
        "processes": len(watcher.processes()),
        "shared_memory": _grouped((name, watcher.makers[name]) for name in shared),
        "temporary": _grouped((name, set()) for name in left_files(watcher.temporary)),
        "strangers_in_shared_memory": watcher.strangers(),
    }
    with files.ends.open("a") as output:
        output.write(json.dumps(end) + "\n")


def _grouped(named: Iterable[tuple[str, set[str]]]) -> dict[str, dict[str, Any]]:
    """{pattern of the names: how many, and the roles that held one of them}."""
    groups: dict[str, dict[str, Any]] = {}
    for name, roles in named:
        group = groups.setdefault(pattern(name), {"count": 0, "roles": []})
        group["count"] += 1
        group["roles"] = sorted({*group["roles"], *roles})
    return groups


def report(files: Files) -> str:
    """Write the figures as JSON and Markdown; the latter."""
    samples, ends = (_lines(path) for path in (files.samples, files.ends))
    found = figures(samples, files.steps(), ends)
    (files.folder / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    text = markdown(found)
    (files.folder / "report.md").write_text(text)
    return text


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file; a last line that was cut off by a full disk or a kill is left out."""
    lines = path.read_text().split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1]]


if __name__ == "__main__":
    main()
