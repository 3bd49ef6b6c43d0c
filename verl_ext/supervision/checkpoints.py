# SPDX-License-Identifier: Apache-2.0
"""verl's checkpoints on a disk: which one a run resumes from, and whether it is whole.

verl writes `latest_checkpointed_iteration.txt` last, but not in one go; and with a limit on the number of checkpoints
it removes an old one before it writes that file. A checkpoint that was copied may lack anything. verl finds out only
when all workers are up, or, where the folder is gone, begins anew without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ext.errors import ConfigurationError
from verl_ext.supervision.torch_file import defect

TRACKER = "latest_checkpointed_iteration.txt"
FOLDER = "global_step_"
DATA = "data.pt"
ROLES = ("actor", "critic")
CONTENTS = {"model": "model", "optimizer": "optim", "extra": "extra_state"}
"""What FSDP's checkpoints may contain, and how its files begin."""
RANK_FILE = re.compile(r"_world_size_(\d+)_rank_(\d+)\.pt$")
MODE, PATH, LOCAL_DIR = "trainer.resume_mode", "trainer.resume_from_path", "trainer.default_local_dir"


def resumed_from(config: DictConfig) -> Path | None:
    """The checkpoint that verl will resume from; None if it begins anew.

    Raises:
        ConfigurationError: that checkpoint is not whole; names the file, and the newest one that is.
    """
    key, folder = _chosen(config)
    if folder is None:
        return None
    found = _problem(folder, config)
    if found is not None:
        raise _error(config, key, found)
    if not (folder / DATA).exists() and key == MODE:
        remedy = f"{folder / DATA} is missing, without which the data begin anew"
        raise _error(config, key, remedy, f"to accept that, write {_resume(folder)}")
    return folder


def checkpoint_of(config: DictConfig) -> Path | None:
    """The checkpoint that verl resumes from, without a look into it; None if it begins anew.

    Raises:
        ConfigurationError: verl's note of the latest one names no step.
    """
    return _chosen(config)[1]


def last_step(folder: Path) -> int | None:
    """The step of the checkpoint that verl calls the latest; None if there is none."""
    text = (folder / TRACKER).read_text(errors="replace").strip() if (folder / TRACKER).is_file() else ""
    return int(text) if text.isdecimal() else None


def problem(folder: Path, contents: Iterable[str], *, megatron: bool, all_ranks: bool = True) -> str | None:
    """What keeps verl from loading a checkpoint.

    Args:
        folder: its `global_step_<n>`.
        contents: what verl will load: "model", "optimizer", "extra".
        megatron: whether Megatron's engine wrote it.
        all_ranks: whether the files of all ranks must be here; each node may have its own disk.

    Returns:
        A clause that names the file; None if nothing was found.
    """
    if not folder.is_dir():
        return f"{folder} is missing"
    if all_ranks and not (folder / "actor").is_dir():
        return f"{folder / 'actor'} is missing"
    wanted = list(contents)
    check = _distributed_problems if megatron else _fsdp_problems
    by_role = (found for role in ROLES if (folder / role).is_dir() for found in check(folder / role, wanted, all_ranks))
    return next(by_role, None) or next(_bad_files(path for path in [folder / DATA] if path.exists()), None)


def _fsdp_problems(folder: Path, contents: list[str], all_ranks: bool) -> Iterator[str]:
    for content, prefix in CONTENTS.items():
        if content in contents:
            yield from _rank_problems(folder, prefix, all_ranks)


def _rank_problems(folder: Path, prefix: str, all_ranks: bool) -> Iterator[str]:
    """Of the files of all ranks; if runs of several sizes wrote there, it is enough that one of them is whole."""
    sizes: dict[int, set[int]] = {}
    for path in folder.glob(f"{prefix}_world_size_*_rank_*.pt"):
        if match := RANK_FILE.search(path.name):
            sizes.setdefault(int(match[1]), set()).add(int(match[2]))
    if not sizes:
        if all_ranks:
            yield f"{folder} has no {prefix}_world_size_*_rank_*.pt"
        return
    wanted = {size: range(size) if all_ranks else sorted(ranks) for size, ranks in sorted(sizes.items())}
    paths = ([folder / f"{prefix}_world_size_{size}_rank_{rank}.pt" for rank in wanted[size]] for size in wanted)
    found = [next(_bad_files(some), None) for some in paths]
    if None not in found:
        yield str(found[-1])


def _distributed_problems(folder: Path, contents: list[str], all_ranks: bool) -> Iterator[str]:
    """Of torch's distributed checkpoints, one a content with Megatron's engine; what is absent may be meant."""
    for saved in sorted(folder.glob("**/dist_ckpt")):
        shards = sorted(saved.glob("*.distcp"))
        if all_ranks and shards and not (saved / ".metadata").is_file():
            yield f"{saved / '.metadata'} is missing"
        yield from _bad_files([path for path in (saved / ".metadata", saved / "common.pt", *shards) if path.exists()])


def _bad_files(paths: Iterable[Path]) -> Iterator[str]:
    return (f"{path} is {what}" for path in paths if (what := defect(path)))


def _chosen(config: DictConfig) -> tuple[str, Path | None]:
    """The key that decides, and the checkpoint that it leads to; None if there is none or it is not on this disk.

    Raises:
        ConfigurationError: verl's note of the latest checkpoint is empty, or the checkpoint is gone.
    """
    mode, local = _get(config, MODE), Path(_get(config, LOCAL_DIR)).absolute()
    if mode == "resume_path":
        folder = Path(str(_get(config, PATH))).absolute()
        # Another machine's disk, if not even the folder around it is here.
        return PATH, folder if FOLDER in folder.name and folder.parent.is_dir() else None
    tracker = local / TRACKER
    if mode != "auto" or not tracker.is_file():
        return MODE, None
    step = last_step(local)
    if step is None:
        raise _error(config, MODE, f"{tracker} does not name a step")
    return MODE, local / f"{FOLDER}{step}"


def _error(config: DictConfig, key: str, found: str, otherwise: str | None = None) -> ConfigurationError:
    newest = _newest(config)
    remedies = [
        f"to resume from the newest whole checkpoint, write {_resume(newest)}" if newest else "no other is whole",
        otherwise,
        f"to begin anew, write {MODE}=disable",
    ]
    remedy = "; ".join(part for part in (found, *remedies) if part)
    return ConfigurationError(key=key, value=_get(config, key), remedy=remedy)


def _resume(folder: Path) -> str:
    return f"{MODE}=resume_path {PATH}={folder}"


def _newest(config: DictConfig) -> Path | None:
    """The newest checkpoint that is whole and has the state of the data."""
    folders = [path for path in Path(_get(config, LOCAL_DIR)).absolute().glob(f"{FOLDER}*") if _step(path) is not None]
    for folder in sorted(folders, key=lambda path: _step(path) or 0, reverse=True):
        if _problem(folder, config) is None and (folder / DATA).exists():
            return folder
    return None


def _step(folder: Path) -> int | None:
    text = folder.name.removeprefix(FOLDER)
    return int(text) if text.isdecimal() else None


def _problem(folder: Path, config: DictConfig) -> str | None:
    one_node = int(_get(config, "trainer.nnodes")) == 1
    return problem(folder, _contents(config), megatron=_is_megatron(config), all_ranks=one_node)


def _contents(config: DictConfig) -> list[str]:
    return list(_get(config, "actor_rollout_ref.actor.checkpoint.load_contents") or CONTENTS)


def _is_megatron(config: DictConfig) -> bool:
    return bool(_get(config, "actor_rollout_ref.actor.strategy") == "megatron")


def _get(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key)
