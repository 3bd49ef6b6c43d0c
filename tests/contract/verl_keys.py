# SPDX-License-Identifier: Apache-2.0
"""Configuration keys of verl's that this package sets or reads, where verl's YAML files alone do not settle it."""

import ast
import re

PATH = re.compile(r"[a-z]\w*(\.[a-z]\w*)+")
FREE_FORM = {
    "ray_kwargs.ray_init.num_gpus": "ray_kwargs.ray_init",
    "ray_kwargs.ray_init.include_dashboard": "ray_kwargs.ray_init",
    "ray_kwargs.ray_init.runtime_env.env_vars": "ray_kwargs.ray_init",
    "reward.custom_reward_function.reward_kwargs": "reward.custom_reward_function",
    "actor_rollout_ref.model.override_config.attn_implementation": "actor_rollout_ref.model.override_config",
}
"""Keys that verl passes on without knowing them: {our key: the mapping that verl must have}."""

MIXED_PRECISION = "verl.workers.config:FSDPEngineConfig.mixed_precision"
FIELD_ONLY = {
    "actor_rollout_ref.rollout.enable_sleep_mode": "verl.workers.config:RolloutConfig.enable_sleep_mode",
    **{
        f"actor_rollout_ref.{role}.fsdp_config.mixed_precision.{name}": MIXED_PRECISION
        for role in ("actor", "ref")
        for name in ("param_dtype", "reduce_dtype", "buffer_dtype")
    },
}
"""Keys that verl's dataclasses have and its YAML does not: {our key: the dataclass field}."""

SECTIONS = ("actor_rollout_ref", "algorithm", "critic", "data", "distillation", "ray_kwargs", "reward", "trainer")
"""verl's sections that this package reads."""
NO_KEYS = {"data.pt", "data.js", "actor_rollout_ref.perception"}
"""They look like keys of verl's, and are files or set by this package."""


PUT_TOGETHER = ("trainer.v1.sync", "trainer.v1.colocate_async", "trainer.v1.separate_async")
"""Keys whose names our code makes out of parts, where nothing can find them."""


def read_keys(source):
    """Every key of verl's that Python code names in a string, or reads as attributes of something called `config`."""
    tree = ast.parse(source)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if PATH.fullmatch(node.value) else set()
        elif isinstance(node, ast.Attribute):
            names = _chain(node)[: -1 if id(node) in called else None]
            if "config" in names[:-1]:
                found.add(".".join(names[names.index("config") + 1 :]))
    return {path for path in found if path.partition(".")[0] in SECTIONS} - NO_KEYS


def _chain(node):
    """The names of `a.b.c`; of an expression before them, nothing."""
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else []
