# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a run resumes from, and whether it is whole: real files of torch, cut, emptied and taken away."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.configuration import configuration
from torch.distributed import checkpoint as distributed

from verl_ext.errors import ConfigurationError
from verl_ext.supervision.checkpoints import problem, resumed_from
from verl_ext.supervision.torch_file import defect

CONTENTS = ("model", "optimizer", "extra")
STATE = {"weight": torch.arange(600.0), "bias": torch.ones(3), "step": 7}


def write(folder, ranks=1, data=True):
    """A checkpoint as verl's FSDP engine writes it."""
    actor = folder / "actor"
    actor.mkdir(parents=True)
    for rank in range(ranks):
        for prefix in ("model", "optim", "extra_state"):
            torch.save(STATE, actor / f"{prefix}_world_size_{ranks}_rank_{rank}.pt")
    if data:
        torch.save({"sampler": 4}, folder / "data.pt")
    return folder


def run(tmp_path, *steps, latest, overrides=()):
    """The configuration of a run that has checkpoints of these steps."""
    for step in steps:
        write(tmp_path / f"global_step_{step}")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(str(latest))
    return configuration("+perception=pgpo", f"trainer.default_local_dir={tmp_path}", *overrides)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "state.pt"
    torch.save(STATE, path)
    return path.read_bytes()


# A file


def test_a_whole_file_has_no_defect(tmp_path, saved):
    (tmp_path / "a.pt").write_bytes(saved)
    assert defect(tmp_path / "a.pt") is None


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_has_one_and_torch_cannot_load_it(tmp_path_factory, saved, share):
    path = tmp_path_factory.mktemp("cut") / "a.pt"
    path.write_bytes(saved[: int(len(saved) * share)])
    assert defect(path) in ("empty", "cut off")
    # Of the first bytes alone torch makes a pickle.
    with pytest.raises((RuntimeError, EOFError, ValueError, OSError, pickle.UnpicklingError)):
        torch.load(path, weights_only=False)


def test_zeros_and_nothing_are_defects(tmp_path):
    (tmp_path / "zeros.pt").write_bytes(bytes(100))
    assert defect(tmp_path / "zeros.pt") == "overwritten by zeros"
    assert defect(tmp_path / "none.pt") == "missing"


def test_a_file_that_the_system_cannot_read_says_why():
    assert defect(Path("/proc/self/mem")) == "unreadable (Input/output error)"


def test_the_format_before_torch_1_6_is_left_to_torch(tmp_path):
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert defect(tmp_path / "old.pt") is None
    assert torch.load(tmp_path / "old.pt", weights_only=False)["step"] == 7


# A checkpoint


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_whole_checkpoint_has_no_problem(tmp_path, ranks):
    assert problem(write(tmp_path / "global_step_1", ranks), CONTENTS, megatron=False) is None


@pytest.mark.parametrize("name", ["model", "optim", "extra_state"])
@pytest.mark.parametrize("damage", ["missing", "cut off", "empty"])
def test_the_file_of_one_rank_that_is_damaged_is_named(tmp_path, name, damage):
    folder = write(tmp_path / "global_step_1", ranks=2)
    path = folder / "actor" / f"{name}_world_size_2_rank_1.pt"
    content = {"cut off": path.read_bytes()[:-1], "empty": b""}
    path.unlink()
    if damage in content:
        path.write_bytes(content[damage])
    assert problem(folder, CONTENTS, megatron=False) == f"{path} is {damage}"


def test_what_is_not_loaded_does_not_matter(tmp_path):
    folder = write(tmp_path / "global_step_1")
    (folder / "actor" / "optim_world_size_1_rank_0.pt").unlink()
    assert "optim_world_size" in problem(folder, CONTENTS, megatron=False)
    assert problem(folder, ("model", "extra"), megatron=False) is None


def test_the_rest_of_a_run_with_more_ranks_does_not_matter(tmp_path):
    folder = write(tmp_path / "global_step_1", ranks=2)
    torch.save(STATE, folder / "actor" / "model_world_size_4_rank_3.pt")
    assert problem(folder, CONTENTS, megatron=False) is None


@pytest.mark.parametrize("role", ["actor", "critic"])
def test_the_critic_is_looked_at_where_there_is_one(tmp_path, role):
    folder = write(tmp_path / "global_step_1")
    shutil.copytree(folder / "actor", folder / "critic")
    path = folder / role / "model_world_size_1_rank_0.pt"
    path.write_bytes(path.read_bytes()[:100])
    assert problem(folder, CONTENTS, megatron=False) == f"{path} is cut off"


@pytest.fixture
def megatron(tmp_path):
    """The layout of verl's Megatron engine, with the shards that torch's distributed checkpoint writes."""
    folder = tmp_path / "global_step_1"
    for content in CONTENTS:
        distributed.save(STATE, checkpoint_id=folder / "actor" / content / "dist_ckpt", no_dist=True)
        torch.save({"common": 1}, folder / "actor" / content / "dist_ckpt" / "common.pt")
    return folder


def test_a_whole_distributed_checkpoint_has_no_problem(megatron):
    assert problem(megatron, CONTENTS, megatron=True) is None


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_of_a_distributed_checkpoint_a_missing_index_or_a_cut_shard_is_named(megatron, name):
    path = megatron / "actor" / "optimizer" / "dist_ckpt" / name
    assert path.exists()
    if name == ".metadata":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30])
    assert problem(megatron, CONTENTS, megatron=True) == f"{path} is {'missing' if name == '.metadata' else 'cut off'}"


def test_a_distributed_checkpoint_of_another_kind_is_left_to_verl(tmp_path):
    (tmp_path / "global_step_1" / "actor" / "huggingface").mkdir(parents=True)
    assert problem(tmp_path / "global_step_1", CONTENTS, megatron=True) is None


# A run


def test_a_new_run_resumes_from_nothing(tmp_path):
    assert resumed_from(configuration("+perception=pgpo", f"trainer.default_local_dir={tmp_path}")) is None


def test_the_latest_checkpoint_is_found(tmp_path):
    assert resumed_from(run(tmp_path, 1, 2, latest=2)) == tmp_path / "global_step_2"


def test_a_half_written_checkpoint_after_the_latest_does_not_matter(tmp_path):
    config = run(tmp_path, 1, latest=1)
    write(tmp_path / "global_step_2", data=False)
    assert resumed_from(config) == tmp_path / "global_step_1"


def test_the_error_names_the_file_and_the_newest_whole_checkpoint(tmp_path):
    config = run(tmp_path, 1, 2, 9, 10, latest=10)
    for step in (9, 10):
        (tmp_path / f"global_step_{step}" / "actor" / "optim_world_size_1_rank_0.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigurationError) as caught:
        resumed_from(config)
    assert str(caught.value) == (
        f"trainer.resume_mode=auto: {tmp_path}/global_step_10/actor/optim_world_size_1_rank_0.pt is cut off; to resume "
        f"from the newest whole checkpoint, write trainer.resume_mode=resume_path "
        f"trainer.resume_from_path={tmp_path}/global_step_2; to begin anew, write trainer.resume_mode=disable"
    )


def test_the_remedy_works(tmp_path):
    run(tmp_path, 1, 2, latest=2)
    (tmp_path / "global_step_2" / "actor" / "model_world_size_1_rank_0.pt").unlink()
    remedy = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path / 'global_step_1'}"]
    assert resumed_from(run(tmp_path, latest=2, overrides=remedy)) == tmp_path / "global_step_1"
    assert resumed_from(run(tmp_path, latest=2, overrides=["trainer.resume_mode=disable"])) is None


def test_a_named_checkpoint_is_looked_at_too(tmp_path):
    path = tmp_path / "global_step_5"
    chosen = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={path}"]
    config = run(tmp_path, 2, latest=2, overrides=chosen)
    with pytest.raises(ConfigurationError, match=rf"trainer\.resume_from_path={path}: {path} is missing"):
        resumed_from(config)
    write(path, data=False)
    assert resumed_from(config) == path


def test_without_the_state_of_the_data_a_run_goes_on_only_if_told(tmp_path):
    config = run(tmp_path, 1, 2, latest=2)
    (tmp_path / "global_step_2" / "data.pt").unlink()
    with pytest.raises(ConfigurationError, match="without which the data begin anew") as caught:
        resumed_from(config)
    assert f"resume_from_path={tmp_path / 'global_step_1'};" in str(caught.value)
    assert (
        f"to accept that, write trainer.resume_mode=resume_path trainer.resume_from_path={tmp_path}/global_step_2"
        in str(caught.value)
    )


@pytest.mark.parametrize("text", ["", "x"])
def test_a_note_of_the_latest_step_that_was_not_finished_is_an_error(tmp_path, text):
    """verl opens the file and then writes it; a kill or a full disk in between leaves it empty."""
    with pytest.raises(ConfigurationError, match=r"latest_checkpointed_iteration\.txt does not name a step") as caught:
        resumed_from(run(tmp_path, 3, latest=text))
    assert f"resume_from_path={tmp_path}/global_step_3" in str(caught.value)


def test_a_latest_checkpoint_that_is_gone_is_an_error(tmp_path):
    """verl would begin anew without a word and write over the others."""
    with pytest.raises(ConfigurationError, match=r"global_step_4 is missing; .*global_step_1"):
        resumed_from(run(tmp_path, 1, latest=4))


@pytest.mark.parametrize("path", ["hdfs://host/global_step_5", "/on/another/machine/global_step_5"])
def test_checkpoints_elsewhere_are_left_to_verl(tmp_path, path):
    chosen = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path='{path}'"]
    assert resumed_from(run(tmp_path, latest=1, overrides=chosen)) is None


def test_a_nodes_own_disk_has_the_files_of_its_ranks(tmp_path):
    folder = write(tmp_path / "global_step_1", ranks=4)
    for path in [*folder.glob("actor/*_rank_2.pt"), *folder.glob("actor/*_rank_3.pt")]:
        path.unlink()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("1")
    one = configuration("+perception=pgpo", f"trainer.default_local_dir={tmp_path}")
    two = configuration("+perception=pgpo", f"trainer.default_local_dir={tmp_path}", "trainer.nnodes=2")
    assert resumed_from(two) == folder
    with pytest.raises(ConfigurationError, match=r"model_world_size_4_rank_2\.pt is missing"):
        resumed_from(one)
    (folder / "actor" / "optim_world_size_4_rank_1.pt").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"optim_world_size_4_rank_1\.pt is empty"):
        resumed_from(two)
