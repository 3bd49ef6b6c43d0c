# SPDX-License-Identifier: Apache-2.0
"""verl as this package knows it. A failure names the symbol that changed and the file that relies on it."""

import ast
import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import re
from pathlib import Path

import pytest
import yaml
from contract.verl_keys import FIELD_ONLY, FREE_FORM, PUT_TOGETHER, SECTIONS, read_keys
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from support.configuration import configuration

import verl_ext
from verl_ext.configuration import contract
from verl_ext.configuration.contract import TABLE, Symbol, complaints, symbols
from verl_ext.platforms.cpu.packed_attention import attend_packed

PACKAGE = Path(verl_ext.__file__).parent
SYMBOLS = symbols()
PACKED_ATTENTION = (
    "query_states",
    "key_states",
    "value_states",
    "attention_mask",
    "query_length",
    "is_causal",
    "position_ids",
    "sliding_window",
)
"""First parameters of verl's `_custom_flash_attention_forward`, which `attend_packed` replaces."""
VERL = f"verl {importlib.metadata.version('verl')}"


@pytest.mark.parametrize("symbol", SYMBOLS, ids=lambda symbol: symbol.name)
def test_symbol(symbol):
    assert complaints([symbol]) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "verl.trainer.ppo.core_algos:aggregate_loss"}, "is gone"),
        ({"name": "verl.trainer.ppo.core_algorithms:agg_loss"}, "is gone"),
        ({"overridden": ("loss", "mask")}, "takes \\('loss_mat', .*formerly \\('loss', 'mask'\\)"),
        ({"called": ("loss_mat=", "token_mask=")}, "cannot be called as"),
        ({"defaults": {"dp_size": 2}}, "has the default dp_size=1, formerly 2"),
        ({"defaults": {"ranks": 2}}, r"has the default ranks=\(no such parameter\), formerly 2"),
        ({"source": ("no such line",)}, r"no longer says \['no such line'\]"),
    ],
)
def test_the_table_can_fail(changed, message):
    symbol = Symbol(**{"name": "verl.trainer.ppo.core_algos:agg_loss", "used_in": "worker/loss.py", **changed})
    (complaint,) = complaints([symbol])
    assert re.search(message, complaint), complaint
    assert complaint.startswith(f"{VERL}: {symbol.name} ")
    assert complaint.endswith("verl_ext/worker/loss.py relies on it")


def test_a_misspelt_key_of_the_table_is_no_silence(tmp_path, monkeypatch):
    table = tmp_path / "contract.yaml"
    table.write_text("plugin.py:\n  verl:DataProto:\n    overriden: self\n")
    monkeypatch.setattr(contract, "TABLE", table)
    with pytest.raises(TypeError, match="overriden"):
        symbols()


def imports_of_verl(path):
    """{(module, name)} of every `from verl... import` in a file."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {(n.module, alias.name) for n in nodes if n.module and n.module.split(".")[0] == "verl" for alias in n.names}


def test_everything_imported_from_verl_is_in_the_table():
    listed = [symbol.name.replace(":", ".") for symbol in SYMBOLS]
    for path in sorted(PACKAGE.rglob("*.py")):
        for module, name in sorted(imports_of_verl(path)):
            # A class or module, such as `tensordict_utils as tu`, is listed by what is used of it.
            assert any(f"{entry}.".startswith(f"{module}.{name}.") for entry in listed), (
                f"{path.relative_to(PACKAGE)} imports {name} from {module}: add it to {TABLE.name}"
            )


def test_the_table_names_our_files():
    for symbol in SYMBOLS:
        assert (PACKAGE / symbol.used_in).is_file(), symbol


@pytest.mark.parametrize("path", sorted((PACKAGE / "commands").glob("*.py")), ids=lambda path: path.stem)
def test_commands_import_verl_only_where_they_need_it(path):
    whole = ast.parse(path.read_text()).body
    imported = [alias.name for node in whole if isinstance(node, ast.Import) for alias in node.names]
    imported += [node.module for node in whole if isinstance(node, ast.ImportFrom)]
    assert not {name.split(".")[0] for name in imported} & {"verl", "ray", "vllm", "torch", "transformers"}


def test_packed_attention_takes_what_verls_takes():
    # From verl's file, for the function itself is replaced in this process.
    module = importlib.import_module("verl.models.transformers.qwen2_vl")
    tree = ast.parse(inspect.getsource(module))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    (verls,) = [node for node in functions if node.name == "_custom_flash_attention_forward"]
    names = tuple(argument.arg for argument in verls.args.args)
    where = f"{VERL}: verl.models.transformers.qwen2_vl:_custom_flash_attention_forward takes {names}"
    assert names[: len(PACKED_ATTENTION)] == PACKED_ATTENTION, where
    assert tuple(inspect.signature(attend_packed).parameters)[: len(PACKED_ATTENTION)] == PACKED_ATTENTION
    assert inspect.signature(attend_packed).parameters["_flash_only"].kind is inspect.Parameter.VAR_KEYWORD
    assert "_flash_use_top_left_mask" in inspect.getsource(module), where


def test_verl_reads_the_plug_in_group():
    source = Path(importlib.import_module("verl").__file__).read_text()
    assert 'entry_points(group="verl.plugins")' in source.replace("_entry_points", "entry_points"), VERL
    names = {entry.value for entry in importlib.metadata.entry_points(group="verl.plugins")}
    assert "verl_ext.plugin" in names


def test_verl_takes_the_data_set_and_the_trainers_by_name():
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.utils.dataset.rl_dataset import get_dataset_class

    from verl_ext.rollout.dataset import CheckedRLHFDataset
    from verl_ext.trainer import trainers

    config = configuration("+perception=pgpo")
    found = get_dataset_class(config.data)
    assert (found.__module__, found.__name__) == (CheckedRLHFDataset.__module__, CheckedRLHFDataset.__name__)
    assert get_trainer_cls(config.trainer.v1.trainer_mode) is trainers.PerceptionTrainerSync
    for mode in ("sync", "colocate_async", "separate_async"):
        ours, theirs = get_trainer_cls(f"perception_{mode}"), get_trainer_cls(mode)
        assert issubclass(ours, theirs)
        assert ours.base_mode == mode


TRAINERS = ["PerceptionTrainerSync", "PerceptionTrainerColocateAsync", "PerceptionTrainerSeparateAsync"]


@pytest.mark.parametrize("name", TRAINERS)
def test_signals_are_measured_inside_verls_own_old_log_prob_hook(name):
    """verl's trainers call `super()`, so what stands behind them runs while the old policy's weights are in place."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    from verl_ext.trainer import trainers
    from verl_ext.trainer.kept_pictures import KeptPictures
    from verl_ext.trainer.signal_passes import SignalPasses

    owners = [cls for cls in getattr(trainers, name).__mro__ if "_compute_old_log_prob" in vars(cls)]
    assert owners[-3:] == [SignalPasses, KeptPictures, PPOTrainer]
    assert all("super()._compute_old_log_prob" in inspect.getsource(cls) for cls in owners[:-1])


@pytest.mark.parametrize(
    ("home", "count"), [("trainer/perception_trainer.py", 6), ("supervision/watched_trainer.py", 6)]
)
def test_our_hooks_come_before_verls(home, count):
    from verl_ext.supervision.watched_trainer import WatchedRun
    from verl_ext.trainer import trainers
    from verl_ext.trainer.perception_trainer import PerceptionTrainerMixin

    ours = [WatchedRun, PerceptionTrainerMixin]
    hooks = {symbol.name.rpartition(".")[2] for symbol in SYMBOLS if symbol.used_in == home and symbol.overridden}
    assert len(hooks) == count
    for trainer in TRAINERS:
        trainer = getattr(trainers, trainer)
        for hook in hooks:
            owners = [cls for cls in trainer.__mro__ if hook in vars(cls)]
            own = [cls for cls in owners if cls in ours]
            assert own, hook
            assert owners[: len(own)] == own, hook
            assert all(f"super().{hook}(" in inspect.getsource(vars(cls)[hook]) for cls in own[:-1])
            for theirs in (cls for cls in owners[len(own) :] if cls is not object):
                names = list(inspect.signature(vars(theirs)[hook]).parameters)
                assert names == list(inspect.signature(getattr(trainer, hook)).parameters), theirs


# Configuration


@functools.cache
def verls_own(engine="dp"):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[f"model_engine={engine}"])


def leaves(node, path=""):
    """Paths of every leaf of a plain nested mapping."""
    if not isinstance(node, dict) or not node:
        return [path]
    return [leaf for key, value in node.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]


def exists(path):
    parent, _, key = path.rpartition(".")
    configs = [verls_own(), verls_own("megatron")]
    nodes = [OmegaConf.select(config, parent) if parent else config for config in configs]
    return any(OmegaConf.is_dict(node) and key in node.keys() for node in nodes)  # noqa: SIM118  `in` misses "???"


def is_field(name):
    """Whether `module:Class.field` is a dataclass field."""
    owner, _, field = name.rpartition(".")
    module, _, cls = owner.partition(":")
    found = getattr(importlib.import_module(module), cls, None)
    return dataclasses.is_dataclass(found) and field in found.__dataclass_fields__


def overridden_keys(file):
    """Paths of the keys of verl's that one of our files sets."""
    content = yaml.safe_load(file.read_text())
    verls = {key: value for key, value in content.items() if key not in ("perception", "hydra", "defaults")}
    return [path for path in leaves(verls) if path]


READ = sorted({path for file in PACKAGE.rglob("*.py") for path in read_keys(file.read_text())} | set(PUT_TOGETHER))
OVERRIDDEN = [(file, path) for file in sorted((PACKAGE / "config").rglob("*.yaml")) for path in overridden_keys(file)]


@pytest.mark.parametrize(("file", "path"), OVERRIDDEN, ids=[f"{file.stem}-{path}" for file, path in OVERRIDDEN])
def test_every_key_that_our_yaml_overrides_is_verls(file, path):
    where = f"{VERL} has no configuration key {path}, which {file.relative_to(PACKAGE)} sets"
    if path in FREE_FORM:
        assert exists(FREE_FORM[path]), where
    elif path in FIELD_ONLY:
        assert is_field(FIELD_ONLY[path]), f"{where}: {FIELD_ONLY[path]} is gone"
    else:
        assert exists(path), where


def test_the_tables_of_exceptions_are_in_use():
    assert {*FREE_FORM, *FIELD_ONLY} <= {path for _, path in OVERRIDDEN} | set(READ)
    assert not any(exists(path) for path in {*FREE_FORM, *FIELD_ONLY})
    assert not is_field("verl.workers.config:RolloutConfig.no_such_field")


@pytest.mark.parametrize("path", READ)
def test_every_key_that_our_code_reads_is_verls(path):
    if path in FREE_FORM:
        path = FREE_FORM[path]
    assert exists(path), f"{VERL} has no configuration key {path} any more; grep verl_ext/ for it"


def test_keys_are_found_in_strings_and_attributes():
    source = """
select(config, "trainer.resume_mode"), self.config.data.train_files.copy(), config.algorithm.gamma, config.name
open("data.pt"), config.trainer, "verl.trainer"
"""
    whole = {"trainer.resume_mode", "data.train_files", "algorithm.gamma", "trainer"}
    assert read_keys(source) == whole | {"data", "algorithm"}
    assert {"trainer.resume_mode", "trainer.resume_from_path", "trainer.default_local_dir"} <= set(READ)
    assert {path.partition(".")[0] for path in READ} == set(SECTIONS)


def test_verl_trains_with_v1_by_default():
    assert verls_own().trainer.use_v1 is True, f"{VERL}: our groups must set trainer.use_v1=True now"
