# SPDX-License-Identifier: Apache-2.0
"""Does the rest of verl's configuration fit the `perception` section? Checked before Ray starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ext.configuration.estimators import check_estimator, check_verls_estimator
from verl_ext.configuration.frozen_tower import check_frozen_tower
from verl_ext.configuration.model import SEQUENCE_PARALLEL_KEYS, check_model
from verl_ext.configuration.section import Perception, parse
from verl_ext.configuration.sharing import check_sharing
from verl_ext.errors import ConfigurationError
from verl_ext.models.fitness import FUSED_KERNELS
from verl_ext.signals.request import Similarity, needs_logits, view_of

TRAINER_MODES = ("perception_sync", "perception_colocate_async", "perception_separate_async")
MODE_PREFIX = "perception_"
MODE = "trainer.v1.trainer_mode"
STRATEGIES = ("fsdp", "fsdp2", "megatron")
STRATEGY = "actor_rollout_ref.actor.strategy"
MEGATRON = "actor_rollout_ref.actor.megatron"
MTP = "actor_rollout_ref.model.mtp.enable"
GROUP_ESTIMATORS = ("grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "opo", "gpg", "reinforce_plus_plus_baseline")


def validate(config: DictConfig, overrides: Sequence[str] = ()) -> None:
    """Check a composed verl configuration that has a `perception` section.

    Args:
        config: verl's.
        overrides: of the command line that it was composed from, where they are known.

    Raises:
        ConfigurationError: names the first key that does not fit, its value, and what to write instead.
    """
    perception = parse(config.perception)
    _check_trainer(config)
    check_estimator(config, perception, overrides)
    _check_groups(config, perception)
    check_model(config, perception)
    _check_rollout(config, perception)
    _check_engine(config, perception)
    check_sharing(config, perception)
    check_frozen_tower(config)


def validate_without_method(config: DictConfig) -> None:
    """Check the trainer and the estimator of a verl configuration that has no `perception` section.

    verl itself looks at both only after Ray has started.

    Raises:
        ConfigurationError: verl knows no such trainer or estimator, or the trainer needs the section.
    """
    mode = str(_get(config, MODE))
    if mode in TRAINER_MODES:
        raise _error(config, MODE, f"add +perception=<method>, or write {mode.removeprefix(MODE_PREFIX)}")
    if mode not in _trainers():
        verls = sorted(_trainers() - set(TRAINER_MODES))
        raise _error(config, MODE, f"verl knows no such trainer; write one of {', '.join(verls)}")
    check_verls_estimator(config)


def _check_trainer(config: DictConfig) -> None:
    if not _get(config, "trainer.use_v1", True):
        raise _error(
            config, "trainer.use_v1", "perception methods run on verl's v1 trainers; write trainer.use_v1=True"
        )
    mode = str(_get(config, MODE))
    if mode in TRAINER_MODES or (mode.startswith(MODE_PREFIX) and mode in _trainers()):
        return
    wanted = f"perception_{mode}" if f"perception_{mode}" in TRAINER_MODES else " or ".join(TRAINER_MODES)
    reason = "verl knows no such trainer" if mode.startswith(MODE_PREFIX) else "this trainer ignores the section"
    raise _error(config, MODE, f"{reason}; write {wanted}")


def _trainers() -> set[str]:
    """Names of all trainers, with those of modules in VERL_USE_EXTERNAL_MODULES."""
    # Imported late: the process that starts Ray has no other use for it.
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    return set(TRAINER_REGISTRY)


def _check_groups(config: DictConfig, perception: Perception) -> None:
    if perception.options.zero_equal_reward_groups and perception.options.base_estimator not in GROUP_ESTIMATORS:
        remedy = (
            f"the advantages of perception.base_estimator={perception.options.base_estimator} are not relative to the "
            f"group; write False, or one of {', '.join(GROUP_ESTIMATORS)}"
        )
        raise _error(config, "perception.zero_equal_reward_groups", remedy)


def _check_rollout(config: DictConfig, perception: Perception) -> None:
    if _get(config, "algorithm.rollout_correction.bypass_mode", False) and perception.signals:
        raise _error(
            config,
            "algorithm.rollout_correction.bypass_mode",
            "the clean and the ablated view must come from the same engine and weights, but bypass mode takes the "
            "clean one from the rollout; write algorithm.rollout_correction.bypass_mode=False",
        )
    bound = perception.options.min_rollout_correlation
    if bound is not None and not _get(config, "actor_rollout_ref.rollout.calculate_log_probs", False):
        raise _error(
            config,
            "actor_rollout_ref.rollout.calculate_log_probs",
            f"perception.min_rollout_correlation={bound} needs them; write "
            "actor_rollout_ref.rollout.calculate_log_probs=True, or perception.min_rollout_correlation=null",
        )


def _check_engine(config: DictConfig, perception: Perception) -> None:
    strategy = _get(config, STRATEGY)
    if strategy not in STRATEGIES:
        remedy = f"perception methods run on {', '.join(STRATEGIES)}; write one of them"
        raise _error(config, STRATEGY, remedy)
    if _get(config, "distillation.enabled", False):
        raise _error(config, "distillation.enabled", "its loss replaces the one that methods extend; write False")
    logits = sorted(signal.field for signal in perception.signals if needs_logits(signal))
    if logits and _get(config, FUSED_KERNELS, False):
        remedy = f"fused kernels never produce the logits that {', '.join(logits)} needs; write False"
        raise _error(config, FUSED_KERNELS, remedy)
    if perception.options.response_only_logits and _get(config, FUSED_KERNELS, False):
        remedy = "fused kernels have no head that perception.response_only_logits=True could shorten; write False"
        raise _error(config, FUSED_KERNELS, remedy)
    if strategy == "megatron":
        _check_megatron(config, perception)
    _check_sequence_parallel(config, perception)


def _check_megatron(config: DictConfig, perception: Perception) -> None:
    paired = sorted(signal.field for signal in perception.signals if needs_logits(signal) and view_of(signal))
    if paired:
        remedy = (
            f"{', '.join(paired)} compares whole distributions of two views, whose logits Megatron cuts over ranks; "
            "write model_engine=dp, or choose what needs sampled tokens alone (divergence=k3)"
        )
        raise _error(config, STRATEGY, remedy)
    if _get(config, f"{MEGATRON}.dynamic_context_parallel", False):
        remedy = "verl has no dynamic context parallelism for models with images; write False"
        raise _error(config, f"{MEGATRON}.dynamic_context_parallel", remedy)
    if perception.options.response_only_logits and _get(config, MTP, False):
        remedy = "its extra heads share the one that perception.response_only_logits=True shortens; write False"
        raise _error(config, MTP, remedy)


def _check_sequence_parallel(config: DictConfig, perception: Perception) -> None:
    """Scores that need every pair of tokens cannot be put together from sums of parts."""
    pairs = sorted(
        signal.field
        for signal in perception.signals
        if isinstance(signal, Similarity) and signal.pooling == "pairwise_mean" and signal.score in ("l2", "l1")
    )
    for sharded in _sequence_cuts(config) if pairs else ():
        if int(_get(config, sharded, 1) or 1) > 1:
            remedy = (
                f"{', '.join(pairs)} needs every pair of response and image tokens, which no rank has where sequences "
                "are split; write 1, or choose score=cosine"
            )
            raise _error(config, sharded, remedy)


def _sequence_cuts(config: DictConfig) -> tuple[str, ...]:
    """Keys whose value is the number of ranks that share a sequence."""
    if _get(config, STRATEGY) != "megatron":
        return SEQUENCE_PARALLEL_KEYS
    by_tensor = (f"{MEGATRON}.tensor_model_parallel_size",) if _get(config, f"{MEGATRON}.sequence_parallel") else ()
    return (f"{MEGATRON}.context_parallel_size", *by_tensor)


def _get(config: DictConfig, key: str, default: Any = None) -> Any:
    return OmegaConf.select(config, key, default=default)


def _error(config: DictConfig, key: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(key=key, value=_get(config, key), remedy=remedy)
