# SPDX-License-Identifier: Apache-2.0
"""Whole training steps of each method over vanilla verl's GRPO, in runs of the real main_ppo; and what they store.

All runs have the same prompts, batch, clip and response length, no KL and no group filter. Vanilla GRPO runs first,
last, and after every few methods: what these differ by is noise. Times are medians of the steps after the first.
A second table has the bytes that lie in TransferQueue beyond GRPO's, and the memory of the run's processes. Exit status
1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from actors import ON_CPU, PIXELS_PER_TOKEN, add_model_options, grid, model_config, response_only, write_model
from common import Limit, exit_status, print_table
from PIL import Image
from support import tiny

from verl_ext.platforms.cpu.environment import ENVIRONMENT
from verl_ext.report.metrics_file import read_steps

PHASES = ("gen", "old_log_prob", "ablated_log_prob", "adv", "update_actor", "update_weights")
VANILLA = "grpo"
METHODS = ("pgpo", "papo_g", "pepo_g", "vgpo")
MOST_RESPONSE_LOGITS, MOST_ALL_LOGITS, MOST_PAPO = 1.0, 1.08, 1.10
METHODS_BETWEEN_VANILLAS = 4
BYTES_OF_A_SIGNAL = 4
MEMORY_POLL_S = 0.5
# What titles of the run's processes tell.
ROLES = {
    "trainer": ("TaskRunner",),
    "actor": ("WorkerDict", "ActorRolloutRef"),
    "rollout": ("vLLM", "VLLM", "AgentLoop", "RewardLoop"),
    "queue": ("TransferQueue", "Storage"),
    "other": ("",),
}


@dataclass
class Run:
    """One run of main_ppo: its name and overrides, and what it left behind."""

    name: str
    overrides: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    steps: list[float] = field(default_factory=list)
    queue: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    @property
    def training(self) -> float:
        """Seconds of a step without the rollout."""
        return self.seconds["step"] - self.seconds["gen"]


def plan(given: argparse.Namespace) -> Iterator[Run]:
    """The runs in order."""
    chosen = [(method, short) for short in given.logits for method in given.methods]
    for index, (method, short) in enumerate(chosen):
        if index % METHODS_BETWEEN_VANILLAS == 0:
            yield vanilla()
        mode = "trainer.v1.trainer_mode=perception_recording_sync"
        check = "perception.min_rollout_correlation=null"
        overrides = [f"+perception={method}", "recipe=grpo", response_only(short), mode, check]
        yield Run(f"{method}, {'response' if short else 'all'} logits", overrides)
    yield vanilla()


def vanilla() -> Run:
    mode = "trainer.v1.trainer_mode=recording_sync"
    return Run(VANILLA, ["algorithm.adv_estimator=grpo", "+recipe=grpo", mode])


def write_data(folder: Path, given: argparse.Namespace) -> None:
    """Prompts of one noise image each and about `given.text` text tokens, in verl's schema.

    No two prompts of a step are equally long: verl 0.9 fails on a batch whose rows all are.
    """
    height, width = (PIXELS_PER_TOKEN * side for side in grid(given.image))
    words, encode = "", tiny.processor().tokenizer.encode
    while len(encode(words)) < given.text:
        words += "what color is the shape? "
    rows = []
    for index in range(given.prompts * given.steps):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG", compress_level=0)
        rows.append(
            {
                "data_source": "noise",
                "prompt": [{"role": "user", "content": f"<image>{words}{'is it red? ' * (index % given.prompts)}"}],
                "images": [{"bytes": buffer.getvalue()}],
                "ability": "noise",
                "reward_model": {"style": "rule", "ground_truth": "red"},
                "extra_info": {"index": index},
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")


def command(given: argparse.Namespace, run: Run, shared: Path, folder: Path) -> list[str]:
    longest = given.image + given.text + 64 * given.prompts
    rows = given.prompts * given.responses
    actor, rollout, ref = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "ref"))
    on_gpu = [
        "actor_rollout_ref.model.use_remove_padding=True",
        f"{actor}.strategy=fsdp2",
        f"{rollout}.name=vllm",
        f"{rollout}.load_format=auto",
        f"{rollout}.tensor_model_parallel_size=1",
        f"{rollout}.gpu_memory_utilization=0.4",
        "trainer.nnodes=1",
        f"trainer.n_gpus_per_node={given.gpus}",
    ]
    return [
        sys.executable,
        "-m",
        "verl.trainer.main_ppo",
        *(["+platform=cpu"] if ON_CPU else on_gpu),
        f"data.train_files={shared / 'train.parquet'}",
        f"data.val_files={shared / 'train.parquet'}",
        f"data.train_batch_size={given.prompts}",
        f"data.max_prompt_length={longest}",
        f"data.max_response_length={given.response}",
        "data.shuffle=False",
        f"actor_rollout_ref.model.path={shared / 'model'}",
        f"{rollout}.n={given.responses}",
        f"{rollout}.ignore_eos=True",
        f"{rollout}.calculate_log_probs=True",
        f"{rollout}.max_model_len={longest + given.response}",
        f"{rollout}.max_num_seqs={max(rows, 4)}",
        f"{rollout}.log_prob_micro_batch_size_per_gpu={given.micro_batch}",
        f"{ref}.log_prob_micro_batch_size_per_gpu={given.micro_batch}",
        f"{actor}.ppo_mini_batch_size={given.prompts}",
        f"{actor}.ppo_micro_batch_size_per_gpu={given.micro_batch}",
        f"{actor}.optim.lr=1e-6",
        "reward.custom_reward_function.path=pkg://verl_ext.rewards.boxed_answer",
        "trainer.logger=[console,file]",
        f"trainer.total_training_steps={given.steps}",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        f"trainer.default_local_dir={folder}",
        f"hydra.run.dir={folder / 'hydra'}",
        *run.overrides,
        *given.overrides,
    ]


def execute(given: argparse.Namespace, run: Run, shared: Path, folder: Path) -> None:
    """Run it to its end and read what it left behind."""
    folder.mkdir()
    metrics, log = folder / "metrics.jsonl", folder / "train.log"
    here = Path(__file__).resolve().parent
    environment = {
        **os.environ,
        **(ENVIRONMENT if ON_CPU else {}),
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent / "tests"), os.environ.get("PYTHONPATH", "")]),
        "VERL_USE_EXTERNAL_MODULES": "recording_trainers",
        "VERL_FILE_LOGGER_PATH": str(metrics),
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            command(given, run, shared, folder), env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
        watch = threading.Thread(target=watch_memory, args=(process, metrics, run.memory))
        watch.start()
        try:
            status = process.wait()
        finally:
            process.terminate()
            watch.join()
    if status:
        raise SystemExit(f"steps: {run.name} failed with status {status}\n{log.read_text()[-6000:]}")
    read(run, metrics, folder / "transfer_queue.json")


def read(run: Run, metrics: Path, queue: Path) -> None:
    later = [data for step, data in read_steps([metrics]) if step > 1]
    timed = (*PHASES, "step")
    run.seconds = {name: statistics.median(data.get(f"timing_s/{name}", 0.0) for data in later) for name in timed}
    run.steps = [data["timing_s/step"] for data in later]
    run.queue = json.loads(queue.read_text())


def watch_memory(process: subprocess.Popen[bytes], metrics: Path, peak: dict[str, int]) -> None:
    """From the end of the first step on, keep the most memory that each role's processes held at a time."""
    while process.poll() is None:
        time.sleep(MEMORY_POLL_S)
        if metrics.exists():
            for role, held in memory_by_role(process.pid).items():
                peak[role] = max(peak.get(role, 0), held)


def memory_by_role(root: int) -> dict[str, int]:
    """Bytes of private memory of a process and its descendants."""
    held: dict[str, int] = defaultdict(int)
    try:
        family = psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return {}
    for member in family:
        try:
            memory = member.memory_info()
            held[role(member.cmdline())] += memory.rss - memory.shared
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return held


def role(words: list[str]) -> str:
    """What a process of the run does, by the title that Ray or vLLM gives it."""
    title = " ".join(words)
    return next(name for name, marks in ROLES.items() if any(mark in title for mark in marks))


def step_table(runs: list[Run]) -> None:
    base = baseline(runs)
    table = [
        [
            run.name,
            *(f"{run.seconds[phase]:.2f}" for phase in (*PHASES, "step")),
            f"{min(run.steps):.2f} to {max(run.steps):.2f}",
            f"{run.seconds['step'] / base['step']:.2f}",
            f"{run.training / base['training']:.2f}",
        ]
        for run in runs
    ]
    print_table(["run", *PHASES, "step", "steps", "step over grpo", "without gen"], table, "Seconds of a step")


def baseline(runs: list[Run]) -> dict[str, float]:
    """Medians over the runs of vanilla GRPO."""
    vanillas = [run for run in runs if run.name == VANILLA]
    return {
        "step": statistics.median(run.seconds["step"] for run in vanillas),
        "training": statistics.median(run.training for run in vanillas),
    }


def added(run: Run, base: Run) -> dict[str, int]:
    """Bytes of the fields that vanilla GRPO does not store."""
    return {name: size for name, size in run.queue["bytes"].items() if name not in base.queue["bytes"]}


def traffic_table(runs: list[Run]) -> None:
    base, table = runs[0], []
    for run in runs:
        fields, tokens = added(run, base), run.queue["response_tokens"]
        stored = sum(run.queue["bytes"].values())
        memory = [
            f"{run.memory.get(name, 0) / 2**20:.0f}" for name in ("trainer", "actor", "rollout", "queue", "other")
        ]
        table.append([run.name, stored, ", ".join(fields) or "-", f"{sum(fields.values()) / tokens:.3f}", *memory])
    header = ["run", "bytes in TransferQueue", "fields beyond grpo's", "bytes a response token"]
    roles = [f"{name}, MiB" for name in ("trainer", "actor", "rollout", "queue", "other")]
    print_table(
        [*header, *roles], table, "Bytes of one step's batch, and private memory of the processes at their peak"
    )


def limits(runs: list[Run]) -> list[Limit]:
    base, found = baseline(runs), []
    for run in runs:
        fields, rows = added(run, runs[0]), run.queue["rows"]
        if run.name == VANILLA:
            continue
        most = MOST_RESPONSE_LOGITS if "response" in run.name else MOST_ALL_LOGITS
        found.append(
            Limit(
                f"{run.name}: step over grpo",
                run.seconds["step"] / base["step"],
                MOST_PAPO if run.name.startswith("papo") else most,
            )
        )
        signals = len(fields) - ("has_image" in fields)
        bound = signals * BYTES_OF_A_SIGNAL * run.queue["response_tokens"] + rows
        found.append(Limit(f"{run.name}: bytes added", sum(fields.values()), bound))
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--logits", nargs="+", choices=("response", "all"))
    parser.add_argument("--image", type=int, default=1024, help="image tokens")
    parser.add_argument("--text", type=int, default=128, help="text tokens of the prompt")
    parser.add_argument("--response", type=int, default=512, help="response tokens, the same for all")
    parser.add_argument("--prompts", type=int, default=2, help="prompts a step, two at least")
    parser.add_argument("--responses", type=int, default=4, help="responses to each prompt")
    parser.add_argument("--steps", type=int, default=5, help="steps of each run; the first does not count")
    parser.add_argument("--gpus", type=int, default=1, help="how many, where there are any")
    parser.add_argument("--quick", action="store_true", help="smaller images and batches, response-only logits")
    parser.add_argument("--folder", type=Path, help="where to keep the files of the runs; default: nowhere")
    add_model_options(parser)
    given = parser.parse_args()
    if given.quick:
        given.image, given.response, given.responses, given.steps = 256, 128, 2, 4
    given.logits = given.logits or (["response"] if given.quick else ["response", "all"])
    given.logits = [name == "response" for name in given.logits]
    return given


def main() -> int:
    given = parse()
    runs = list(plan(given))
    with tempfile.TemporaryDirectory() as temporary:
        shared = given.folder or Path(temporary)
        shared.mkdir(parents=True, exist_ok=True)
        height, width = (PIXELS_PER_TOKEN * side for side in grid(given.image))
        write_model(shared / "model", model_config(given.model, given.layers), pixels=height * width)
        write_data(shared, given)
        for index, run in enumerate(runs):
            print(f"{time.strftime('%H:%M:%S')} {run.name}", file=sys.stderr, flush=True)
            execute(given, run, shared, shared / f"run{index}")
    sizes = f"{given.image} image, about {given.text} text and {given.response} response tokens"
    print(f"\n{given.prompts} x {given.responses} rows of {sizes}; {given.model} model, {given.steps} steps")
    step_table(runs)
    traffic_table(runs)
    return exit_status(limits(runs))


if __name__ == "__main__":
    sys.exit(main())
