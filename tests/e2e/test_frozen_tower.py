# SPDX-License-Identifier: Apache-2.0
"""A whole run with a frozen vision tower, its checkpoint, and a run that goes on from there."""

import pytest
from safetensors.torch import load_file
from support.runs import train
from support.tiny import MODEL

pytestmark = pytest.mark.slow

FROZEN = (
    "+perception=papo_g",
    "algorithm.filter_groups.enable=False",
    "actor_rollout_ref.actor.freeze_vision_tower=True",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
    "actor_rollout_ref.actor.checkpoint.load_contents=[model,optimizer,extra]",
    "trainer.save_freq=1",
)


def weights(folder):
    """{name: tensor} of all files of a folder."""
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def test_the_tower_is_that_of_the_model_and_the_run_can_be_resumed(easy_vqa, tmp_path):
    for steps in (2, 3):
        run = train(tmp_path / str(steps), easy_vqa, *FROZEN, steps=steps, checkpoints=tmp_path / "checkpoints")
        assert run.status == 0, run.output[-4000:]
    assert list(run.steps) == [3]
    before = weights(MODEL)
    after = weights(tmp_path / "checkpoints" / "global_step_3" / "actor" / "huggingface")
    assert before.keys() == after.keys()
    moved = {name for name, value in before.items() if not value.to(after[name].dtype).equal(after[name])}
    assert any("visual." in name for name in before)
    assert moved
    assert not any("visual." in name for name in moved)
