# SPDX-License-Identifier: Apache-2.0
"""A disk that fills up while verl's worker writes a checkpoint: what the run says, and what is left to resume from."""

import pytest
import torch
from support import workers
from support.configuration import configuration

from verl_ext.errors import ConfigurationError
from verl_ext.supervision.checkpoints import resumed_from
from verl_ext.supervision.stop_reason import stopped

pytestmark = pytest.mark.usefixtures("process_group")


@pytest.fixture(scope="module")
def worker():
    return workers.build("+perception=pgpo")


@pytest.fixture
def folder(worker, tmp_path):
    """Of a run whose checkpoint of step 1 is whole."""
    worker.save_checkpoint(str(tmp_path / "global_step_1" / "actor"), global_step=1)
    torch.save({}, tmp_path / "global_step_1" / "data.pt")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("1")
    return tmp_path


@pytest.mark.parametrize("name", ["model", "optim", "extra_state"])
def test_the_message_says_so_and_the_checkpoint_before_is_whole(worker, folder, name):
    full = folder / "global_step_2" / "actor" / f"{name}_world_size_1_rank_0.pt"
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    with pytest.raises((RuntimeError, OSError)) as caught:
        worker.save_checkpoint(str(full.parent), global_step=2)
    config = configuration("+perception=pgpo", f"trainer.default_local_dir={folder}")
    said = stopped(caught.value, config, where="in step 2, while its checkpoint was written")
    assert "in step 2, while its checkpoint was written: a file could not be written (" in said
    assert f"GiB are free under {folder}" in said
    assert said.endswith("The checkpoint of step 1 is there: the same command continues with step 2")
    assert resumed_from(config) == folder / "global_step_1"
    worker.load_checkpoint(str(folder / "global_step_1" / "actor"))


def test_a_note_of_the_latest_step_that_met_the_full_disk_is_told(folder):
    """verl empties that file before it writes it."""
    note = folder / "latest_checkpointed_iteration.txt"
    note.unlink()
    note.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        note.write_text("2")
    note.unlink()
    note.touch()
    with pytest.raises(ConfigurationError, match=r"does not name a step; .*global_step_1;"):
        resumed_from(configuration("+perception=pgpo", f"trainer.default_local_dir={folder}"))
