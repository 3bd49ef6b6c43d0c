# SPDX-License-Identifier: Apache-2.0
"""The metrics of an attempt are still there after the next one, and the report reads all of them."""

from pathlib import Path

import pytest
import torch
from support.configuration import configuration
from support.synthetic_run import write_metrics
from verl.utils.tracking import FileLogger

from verl_ext.configuration.hydra_callback import ValidatePerception
from verl_ext.report.metrics_file import read_steps, with_earlier
from verl_ext.report.runs import load_run
from verl_ext.supervision.kept_metrics import keep_metrics

LOGGED = "trainer.logger=[console,file]"


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VERL_FILE_LOGGER_ROOT", raising=False)
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    return tmp_path / "metrics.jsonl"


def attempt(config, *steps):
    """What verl's logger does when an attempt starts and logs."""
    logger = FileLogger(config.trainer.project_name, config.trainer.experiment_name)
    for step, data in steps:
        logger.log(data, step)
    logger.finish()


def test_every_attempt_is_kept_and_read_in_order(path):
    config = configuration("+perception=pgpo", LOGGED)
    assert keep_metrics(config) is None
    attempt(config, (1, {"a": 1.0}), (2, {"a": 2.0}), (3, {"a": 3.0}))
    assert keep_metrics(config) == path.with_name("metrics.1.jsonl")
    assert load_run(path.parent, [path], "run", 1).steps[-1] == (3, {"a": 3.0})
    attempt(config, (3, {"a": 30.0}))
    assert keep_metrics(config) == path.with_name("metrics.2.jsonl")
    attempt(config, (3, {"a": 300.0}), (4, {"a": 400.0}))
    expected = [(1, {"a": 1.0}), (2, {"a": 2.0}), (3, {"a": 300.0}), (4, {"a": 400.0})]
    assert read_steps(with_earlier(path)) == expected
    assert load_run(path.parent, [], "run", 1).steps == expected
    assert load_run(path.parent, [path], "run", 1).steps == expected


def test_validation_before_a_resumed_run_adds_to_the_step_that_it_resumes_from(path):
    write_metrics(path, [(4, {"loss": 1.0})])
    config = configuration("+perception=pgpo", LOGGED)
    keep_metrics(config)
    attempt(config, (4, {"val-core/acc": 0.5}), (5, {"loss": 2.0}))
    assert read_steps(with_earlier(path))[0] == (4, {"loss": 1.0, "val-core/acc": 0.5})


def test_a_run_that_stopped_before_its_first_step_leaves_no_file(path):
    config = configuration("+perception=pgpo", LOGGED)
    attempt(config)
    assert keep_metrics(config) is None
    assert with_earlier(path) == [path]


PLACES = {
    "path": ({"VERL_FILE_LOGGER_PATH": "here/m.jsonl"}, [], "here/m.jsonl"),
    "root": ({"VERL_FILE_LOGGER_ROOT": "logs"}, [], "logs/shapes/first.jsonl"),
    "neither": ({}, [], "shapes/first.jsonl"),
    "Ray's": (
        {"VERL_FILE_LOGGER_PATH": "here/m.jsonl"},
        ["++ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH=there/m.jsonl"],
        "there/m.jsonl",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_file_is_where_verl_writes_it(place, path, monkeypatch):
    variables, overrides, expected = PLACES[place]
    monkeypatch.delenv("VERL_FILE_LOGGER_PATH")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    names = ["trainer.project_name=shapes", "trainer.experiment_name=first"]
    config = configuration("+perception=pgpo", LOGGED, *names, *overrides)
    if not overrides:
        Path(expected).parent.mkdir(parents=True, exist_ok=True)
        attempt(config, (1, {"a": 1.0}))
    else:
        Path(expected).parent.mkdir()
        write_metrics(Path(expected), [(1, {"a": 1.0})])
    assert keep_metrics(config) == Path(expected).with_suffix(".1.jsonl")


def test_without_the_file_logger_nothing_is_renamed(path):
    write_metrics(path, [(1, {"a": 1.0})])
    assert keep_metrics(configuration("+perception=pgpo", "trainer.logger=[console]")) is None
    assert keep_metrics(configuration("+perception=pgpo", "trainer.logger=file")) == path.with_name("metrics.1.jsonl")


def started(folder, *overrides):
    given = [f"trainer.default_local_dir={folder}", LOGGED, "algorithm.filter_groups.enable=False"]
    given += [f"data.{name}_files={__file__}" for name in ("train", "val")]
    ValidatePerception().on_job_start(configuration("+perception=pgpo", *given, *overrides))


def test_before_ray_starts_metrics_are_kept_if_the_run_resumes_and_only_then(path, capsys):
    folder = path.parent
    write_metrics(path, [(1, {"a": 1.0})])
    started(folder)
    assert path.exists()
    (folder / "global_step_1" / "actor").mkdir(parents=True)
    for name in ("model", "optim", "extra_state"):
        torch.save({}, folder / "global_step_1" / "actor" / f"{name}_world_size_1_rank_0.pt")
    torch.save({}, folder / "global_step_1" / "data.pt")
    (folder / "latest_checkpointed_iteration.txt").write_text("1")
    started(folder, "trainer.resume_mode=disable")
    assert path.exists()
    started(folder)
    assert not path.exists()
    said = f"resuming from {folder}/global_step_1; the metrics up to here are kept in {folder}/metrics.1.jsonl"
    assert capsys.readouterr().err.splitlines() == [f"verl-ext: {said}"]


def test_a_checkpoint_that_is_not_whole_is_one_line_before_ray_starts(path):
    (path.parent / "latest_checkpointed_iteration.txt").write_text("3")
    with pytest.raises(SystemExit, match=r"^verl-ext: trainer\.resume_mode=auto: .*global_step_3 is missing"):
        started(path.parent)
