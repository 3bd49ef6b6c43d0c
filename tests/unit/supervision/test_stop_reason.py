# SPDX-License-Identifier: Apache-2.0
"""The line that says where a run stopped, why, and how it goes on; from errors that Ray, vLLM and the disk raise."""

import os
import signal
from pathlib import Path

import pytest
import ray
from support.configuration import configuration

from verl_ext.supervision.stop_reason import TrainingStopped, last_words, stopped


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def config(folder, *overrides, step=None):
    if step is not None:
        (folder / "latest_checkpointed_iteration.txt").write_text(str(step))
    return configuration("+perception=pgpo", f"trainer.default_local_dir={folder}", *overrides)


@pytest.fixture
def actor(cluster):
    """Stands for any of verl's, which are known by the names of their classes."""

    class AgentLoopWorkerTQ:
        def process(self):
            return os.getpid()

        def wait(self):
            signal.pause()

        def train(self, made):
            try:
                raise ValueError("a cause")
            except ValueError as error:
                raise TrainingStopped(stopped(error, made, where="in step 7")) from error

    return ray.remote(AgentLoopWorkerTQ).remote()


def test_a_process_that_was_killed_is_named(actor, tmp_path):
    process = ray.get(actor.process.remote())
    answer = actor.wait.remote()
    os.kill(process, signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError) as caught:
        ray.get(answer, timeout=60)
    said = stopped(caught.value, config(tmp_path, step=3), where="in step 4")
    assert said == (
        f"training stopped in step 4: an agent-loop worker (process {process}) died; Ray's lines above say how it "
        "ended. The checkpoint of step 3 is there: the same command continues with step 4"
    )
    assert last_words(caught.value, config(tmp_path, step=3)).startswith("training stopped: an agent-loop worker")


def test_what_the_training_process_said_is_repeated_by_the_command(actor, tmp_path):
    with pytest.raises(TrainingStopped) as caught:
        ray.get(actor.train.remote(config(tmp_path)))
    assert "ValueError: a cause" in str(caught.value)
    assert last_words(caught.value, config(tmp_path)) == (
        f"training stopped in step 7: ValueError: a cause. This run has no checkpoint in {tmp_path} yet: the same "
        "command begins anew"
    )


def test_a_constructor_that_fails_is_no_process_that_died(cluster, tmp_path):
    class Broken:
        def __init__(self):
            raise KeyError("shape")

        def process(self):
            return 0

    with pytest.raises(ray.exceptions.RayActorError) as caught:
        ray.get(ray.remote(Broken).remote().process.remote())
    said = last_words(caught.value, config(tmp_path))
    assert "KeyError: 'shape'" in said
    assert "died; " not in said


def test_a_full_disk_is_one(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught:
        Path("/dev/full").write_text("x")
    said = stopped(caught.value, config(tmp_path, step=1), where="in step 2, while its checkpoint was written")
    assert "in step 2, while its checkpoint was written: a file could not be written ([Errno 28] No space left" in said
    assert f"GiB are free under {tmp_path}" in said


def test_a_run_that_does_not_look_for_checkpoints_is_told_how(tmp_path):
    made = config(tmp_path, "trainer.resume_mode=disable", step=5)
    said = stopped(ValueError("x"), made, where="in step 6")
    assert said.endswith("the same command with trainer.resume_mode=auto continues with step 6")


def test_a_checkpoint_of_an_earlier_run_is_none_of_a_run_that_did_not_want_it(tmp_path):
    made = config(tmp_path, "trainer.resume_mode=disable", step=5)
    os.utime(tmp_path / "latest_checkpointed_iteration.txt", (0, 0))
    assert "This run has no checkpoint" in stopped(ValueError("x"), made, where="in step 2")
    resumed = config(tmp_path, step=5)
    os.utime(tmp_path / "latest_checkpointed_iteration.txt", (0, 0))
    assert "The checkpoint of step 5 is there" in stopped(ValueError("x"), resumed, where="in step 6")


def test_a_full_disk_is_told_where_not_even_the_folder_could_be_made(tmp_path):
    folder = tmp_path / "project" / "experiment"
    said = stopped(OSError(28, "No space left on device"), config(folder), where="in step 1")
    assert f"GiB are free under {folder}" in said
