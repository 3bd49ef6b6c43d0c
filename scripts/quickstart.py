# SPDX-License-Identifier: Apache-2.0
"""Train the tiny Qwen2.5-VL with PGPO on easy-VQA's colour questions, through verl's main_ppo; say what changed.

Called by quickstart.sh. Extra arguments are verl overrides. An interrupted run continues from its last checkpoint; a
finished one is only reported again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from verl_ext.data.easy_vqa import write_easy_vqa
from verl_ext.platforms.cpu.environment import ENVIRONMENT
from verl_ext.report.metrics_file import Step, read_steps
from verl_ext.report.summary import improvement, summarise
from verl_ext.report.token_view import latest_records, shaded

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data" / "easy_vqa_color"
RUN = ROOT / "runs" / "quickstart"
QUESTIONS = 512
STEPS = 45

OVERRIDES = [
    "+perception=pgpo",
    "+platform=cpu",
    # DAPO's filter leaves out solved groups, which would hide the rise of the training reward.
    "algorithm.filter_groups.enable=False",
    f"data.train_files={DATA / 'train.parquet'}",
    f"data.val_files=[{DATA / 'test.parquet'},{DATA / 'test_blind.parquet'}]",
    # Three epochs, so that the report can show how the tokens of the same prompt change.
    f"data.train_max_samples={16 * STEPS // 3}",
    "data.train_batch_size=16",
    "data.max_prompt_length=96",
    "data.max_response_length=48",
    "data.seed=1",
    f"actor_rollout_ref.model.path={ROOT / 'assets' / 'tiny-qwen2.5-vl'}",
    "actor_rollout_ref.rollout.n=8",
    "actor_rollout_ref.rollout.max_model_len=144",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=64",
    "actor_rollout_ref.rollout.val_kwargs.do_sample=True",
    "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
    "actor_rollout_ref.actor.ppo_mini_batch_size=16",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=64",
    "actor_rollout_ref.actor.optim.lr=5e-4",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=10",
    "reward.custom_reward_function.path=pkg://verl_ext.rewards.boxed_answer",
    "perception.min_rollout_correlation=0.999",
    "perception.record_every=5",
    "trainer.logger=[console,file]",
    f"trainer.total_training_steps={STEPS}",
    f"trainer.save_freq={STEPS // 3}",
    f"trainer.test_freq={STEPS}",
    "trainer.max_actor_ckpt_to_keep=1",
    "trainer.project_name=verl-ext",
    "trainer.experiment_name=quickstart",
    f"trainer.default_local_dir={RUN}",
    f"hydra.run.dir={RUN / 'hydra'}",
]


def main() -> int:
    """Prepare, train, report; the exit status is main_ppo's."""
    started = time.time()
    if not (DATA / "README.md").exists():
        print("data: writing easy-VQA's colour questions in verl's schema")
        write_easy_vqa(DATA, questions="color", val_size=QUESTIONS)
    RUN.mkdir(parents=True, exist_ok=True)
    if _finished(_steps()):
        unused = f", so {' '.join(sys.argv[1:])} is not used" if sys.argv[1:] else ""
        print(f"quickstart: the run is finished{unused}")
    elif status := _train(sys.argv[1:]):
        return status
    _report(_steps())
    print("\nthe same as a page, with curves and with each response beside its picture:")
    status = subprocess.run([sys.executable, "-m", "verl_ext.cli", "report", RUN], check=False).returncode
    print(f"\n{time.time() - started:.0f} s in all. Files of the run: {RUN}")
    print(f"  metrics*.jsonl, perception_tokens/, global_step_*/ (checkpoint), train.log\nTo train anew: rm -r {RUN}")
    return status


def _train(overrides: list[str]) -> int:
    """Run main_ppo with its output in a file, a progress bar on the screen, and its last words if it fails."""
    metrics = RUN / f"metrics{len(list(RUN.glob('metrics*.jsonl')))}.jsonl"
    log = RUN / "train.log"
    environment = {**os.environ, **ENVIRONMENT, "VERL_FILE_LOGGER_PATH": str(metrics)}
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *OVERRIDES, *overrides]
    print(f"training: {STEPS} PGPO steps; the first takes about a minute to come. Log: {log}")
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            _follow(process)
        except KeyboardInterrupt:
            process.terminate()
            raise SystemExit("stopped; run the same command to continue from the last checkpoint") from None
        finally:
            process.wait()
    if process.returncode:
        print(f"\nquickstart: main_ppo failed with status {process.returncode}. {_cause(log)}\nWhole log: {log}")
    return process.returncode


def _follow(process: subprocess.Popen[bytes]) -> None:
    with tqdm(total=STEPS, unit="step", dynamic_ncols=True) as bar:
        while process.poll() is None:
            time.sleep(1)
            _advance(bar)
        _advance(bar)


def _advance(bar: tqdm) -> None:
    steps = _steps()
    if steps and steps[-1][0] != bar.n:
        bar.update(steps[-1][0] - bar.n)
        if "critic/score/mean" in steps[-1][1]:
            bar.set_postfix(reward=f"{steps[-1][1]['critic/score/mean']:.3f}")


def _cause(log: Path) -> str:
    """The last line of the log that names an error, with Ray's prefix and colours removed."""
    lines = [line.split("\x1b[0m")[-1].strip() for line in log.read_text(errors="replace").splitlines()]
    errors = [line for line in lines if "Error" in line or line.startswith("verl-ext:")]
    return errors[-1] if errors else (lines[-1] if lines else "It said nothing.")


def _steps() -> list[Step]:
    return read_steps(sorted(RUN.glob("metrics*.jsonl")))


def _finished(steps: list[Step]) -> bool:
    return bool(steps) and steps[-1][0] >= STEPS


def _report(steps: list[Step]) -> None:
    print("\n" + summarise(steps, source="easy_vqa", questions=QUESTIONS))
    change, error = improvement(steps, source="easy_vqa", questions=QUESTIONS)
    print(f"change with image over its standard error: {change / error:.1f}" + ("" if change > error else " (noise)"))
    print("\nwhich tokens looked at the picture (k3 divergence in nats of the view without it):")
    for record in latest_records(RUN / "perception_tokens")[:4]:
        print(f"  reward {record['reward']:.1f}  {shaded(record, colour=sys.stdout.isatty())}")


if __name__ == "__main__":
    sys.exit(main())
