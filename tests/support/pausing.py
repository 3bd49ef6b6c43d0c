# SPDX-License-Identifier: Apache-2.0
"""Pauses at chosen moments of a training run, so that a test can kill a process there and nowhere else.

Loaded into every process of a run through verl's own `VERL_USE_EXTERNAL_MODULES`. `PAUSES` names the moments, such as
`generating:2,saving:3`: moment and step. At each of them the process writes a file named after it into `PAUSE_FOLDER`
and waits until the test removes that file.
"""

import io
import os
import time
from functools import wraps
from pathlib import Path

import torch

# verl loads its external modules before its plug-ins, and the trainers need the platform that the plug-in registers.
import verl_ext.plugin  # noqa: F401  isort: skip
from verl.trainer.ppo.v1.trainer_base import register_trainer

from support.measuring_trainers import MeasuringPerceptionSync

LONGEST = 120
"""Seconds of a pause that nobody ends."""
STEP = "step"
"""File in the folder with the step whose update is going on."""


def pause(moment, step):
    if f"{moment}:{step}" not in os.environ.get("PAUSES", "").split(","):
        return
    mark = Path(os.environ["PAUSE_FOLDER"]) / f"{moment}-{step}"
    mark.touch()
    started = time.monotonic()
    while mark.exists() and time.monotonic() - started < LONGEST:
        time.sleep(0.02)


@register_trainer("perception_pausing_sync")
class PausingPerceptionSync(MeasuringPerceptionSync):
    """Pauses around the moment at which a step's prompts are handed out, and before the actor is updated.

    Tells its workers which step it is.
    """

    def prepare_step(self):
        pause("submitting", self.global_steps)
        return super().prepare_step()

    def on_sample_begin(self):
        super().on_sample_begin()
        pause("generating", self.global_steps)

    def _update_actor(self, batch, metrics):
        pause("updating", self.global_steps)
        (Path(os.environ["PAUSE_FOLDER"]) / STEP).write_text(str(self.global_steps))
        return super()._update_actor(batch, metrics)


def interrupted(backward):
    """`Tensor.backward` that pauses in the first rank, while the other ranks wait for its gradients."""

    @wraps(backward)
    def paused(*args, **kwargs):
        step = Path(os.environ.get("PAUSE_FOLDER", "")) / STEP
        if step.is_file() and os.environ.get("RANK") == "0":
            pause("backward", int(step.read_text()))
        return backward(*args, **kwargs)

    return paused


def half_written(save):
    """`torch.save` that writes half of an optimizer's file, pauses, and then writes the rest."""

    @wraps(save)
    def saved(value, file, *args, **kwargs):
        path = Path(file) if isinstance(file, str | os.PathLike) else Path()
        step = path.parent.parent.name.removeprefix("global_step_")
        if not path.name.startswith("optim_") or f"saving:{step}" not in os.environ.get("PAUSES", ""):
            return save(value, file, *args, **kwargs)
        buffer = io.BytesIO()
        save(value, buffer, *args, **kwargs)
        content = buffer.getvalue()
        with path.open("wb") as opened:
            opened.write(content[: len(content) // 2])
            opened.flush()
            pause("saving", int(step))
            opened.write(content[len(content) // 2 :])

    return saved


torch.save = half_written(torch.save)
torch.Tensor.backward = interrupted(torch.Tensor.backward)
