# SPDX-License-Identifier: Apache-2.0
"""The CPU platform: the whole of main_ppo on a laptop or in CI, only when `VERL_PLATFORM=cpu` asks for it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import wrapt

VLLM_ROLLOUT = "verl.workers.rollout.vllm_rollout"


def register() -> None:
    """Register the platform now and everything else when verl imports the module it concerns."""
    from verl_ext.platforms.cpu import polling, process_group, split_attention, vllm_distribution, weight_socket

    import_module("verl_ext.platforms.cpu.platform")
    vllm_distribution.install()
    wrapt.register_post_import_hook(process_group.patch, "verl.utils.distributed")
    wrapt.register_post_import_hook(_patch_exchange, "verl.utils.ulysses")
    for model in ("qwen2_vl", "glm4v"):
        wrapt.register_post_import_hook(_patch_attention, f"verl.models.transformers.{model}")
    wrapt.register_post_import_hook(split_attention.patch, "transformers.modeling_utils")
    wrapt.register_post_import_hook(polling.patch, "verl.trainer.ppo.v1.replay_buffer")
    wrapt.register_post_import_hook(weight_socket.patch_sender, f"{VLLM_ROLLOUT}.vllm_rollout")
    wrapt.register_post_import_hook(weight_socket.patch_receiver, f"{VLLM_ROLLOUT}.utils")
    wrapt.register_post_import_hook(_register_checkpoint_engine, "verl.checkpoint_engine")
    wrapt.register_post_import_hook(_register_engine, "verl.workers.engine.fsdp.transformer_impl")


def _register_engine(_module: ModuleType) -> None:
    import_module("verl_ext.platforms.cpu.engine")


def _register_checkpoint_engine(_module: ModuleType) -> None:
    import_module("verl_ext.platforms.cpu.checkpoint_engine")


def _patch_attention(module: ModuleType) -> None:
    import_module("verl_ext.platforms.cpu.packed_attention").patch(module)


def _patch_exchange(module: ModuleType) -> None:
    import_module("verl_ext.platforms.cpu.all_to_all").patch(module)
