# SPDX-License-Identifier: Apache-2.0
"""What all arms share: the length of a run, its batches, and main_ppo's arguments."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study import evaluate, task

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "assets" / "tiny-qwen2.5-vl"


@dataclass(frozen=True)
class Plan:
    """Sizes of every run.

    Attributes:
        steps: of training.
        checkpoint_every: steps; each checkpoint is evaluated.
        prompts: of a step, in one optimizer step.
        responses: to each prompt.
        train: questions of each kind to train on.
        test: of each kind to evaluate on.
        learning_rate: after a warm-up of five steps.
    """

    steps: int = 24
    checkpoint_every: int = 8
    prompts: int = 16
    responses: int = 8
    learning_rate: str = "5e-4"
    train: int = 192
    test: int = 256

    @property
    def checkpoints(self) -> range:
        """The steps with one; the last step is among them."""
        return range(self.checkpoint_every, self.steps + 1, self.checkpoint_every)

    def overrides(self, questions: Path, work: Path, seed: int | str) -> list[str]:
        """Arguments to main_ppo. The seed orders the prompts and seeds the rollout."""
        return [
            "+platform=cpu",
            f"data.train_files={questions / 'train.parquet'}",
            f"data.val_files={questions / 'test.parquet'}",
            f"data.train_batch_size={self.prompts}",
            "data.max_prompt_length=96",
            "data.max_response_length=48",
            f"data.seed={seed}",
            f"actor_rollout_ref.model.path={MODEL}",
            f"actor_rollout_ref.rollout.n={self.responses}",
            "actor_rollout_ref.rollout.max_model_len=144",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=64",
            f"actor_rollout_ref.rollout.seed={seed}",
            f"actor_rollout_ref.actor.ppo_mini_batch_size={self.prompts}",
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=64",
            f"actor_rollout_ref.actor.optim.lr={self.learning_rate}",
            "actor_rollout_ref.actor.optim.lr_warmup_steps=5",
            "actor_rollout_ref.actor.checkpoint.save_contents=[hf_model]",
            "reward.custom_reward_function.path=pkg://verl_ext.rewards.boxed_answer",
            "trainer.logger=[console,file]",
            f"trainer.total_training_steps={self.steps}",
            "trainer.total_epochs=100",
            f"trainer.save_freq={self.checkpoint_every}",
            "trainer.test_freq=-1",
            "trainer.val_before_train=False",
            "trainer.resume_mode=disable",
            "trainer.project_name=verl-ext",
            "trainer.experiment_name=comparison",
            f"trainer.default_local_dir={work}",
            f"hydra.run.dir={work / 'hydra'}",
        ]

    def settings(self) -> dict[str, Any]:
        """Everything that runs must share to be compared, without the paths of one machine."""
        shared = self.overrides(Path("questions"), Path("work"), seed="{seed}")
        return {
            "plan": asdict(self),
            "overrides": [override.replace(f"{ROOT}/", "") for override in shared],
            "questions": {"seed": task.SEED},
            "evaluation": {
                "samples": evaluate.SAMPLES,
                "batch": evaluate.BATCH,
                "most_new_tokens": evaluate.MOST_NEW_TOKENS,
                "seed": evaluate.SEED,
            },
        }
