# SPDX-License-Identifier: Apache-2.0
"""The methods as advantage estimators of verl's registry. Importing this module registers them.

Each is a base estimator of verl's times the weights of methods. In a run the trainer hands over what it has measured
while verl computes advantages; anyone else calls the function with the signals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est

from verl_ext.configuration.estimators import OF_ANY_METHODS, REGISTERED, nothing_measured
from verl_ext.methods.available import available_methods
from verl_ext.methods.base import Method, RolloutSignals
from verl_ext.methods.credit import combined, method_weights
from verl_ext.methods.groups import group_index
from verl_ext.methods.rows import check_rows

if TYPE_CHECKING:
    from verl_ext.trainer.step_credit import StepCredit

Advantages = tuple[Tensor, Tensor]
"""(B, T) advantages and returns."""
Signals = dict[str, Tensor]

_measured: ContextVar[StepCredit | None] = ContextVar("measured", default=None)


@contextmanager
def handed_over(measured: StepCredit) -> Iterator[None]:
    """While open, the registered estimators weight by `measured`."""
    token = _measured.set(measured)
    try:
        yield
    finally:
        _measured.reset(token)


def register(name: str) -> None:
    """Register the estimator that verl then knows as `name`, with verl's signature."""

    def estimate(
        token_level_rewards: Tensor,
        response_mask: Tensor,
        index: Any,
        config: Any = None,
        *,
        methods: Sequence[Method] = (),
        base_estimator: str = "grpo",
        has_image: Tensor | None = None,
        progress: float = 1.0,
        **signals: Tensor,
    ) -> Advantages:
        """Advantages of a base estimator, times the weights of methods.

        In a run with `+perception` the last five arguments are not given: the trainer has handed them over.

        Args:
            token_level_rewards: (B, T) floating point.
            response_mask: (B, T), non-zero where the token counts.
            index: (B,) array of the rows' prompts, equal for the responses to one; a list or a tensor serves too.
            config: verl's `algorithm` section; None for verl's defaults.
            methods: with their hyper-parameters; by default the estimator's own with the paper's.
            base_estimator: verl's, by name.
            has_image: (B,) bool; by default every row has one.
            progress: share of the run that is done, in [0, 1], for methods with a schedule; by default all of it.
            **signals: `old_log_prob`, and what each method's `signals()` calls its `field`, all (B, T) fp32, under the
                policy that sampled: `ablated_log_prob` for PGPO, `entropy` and
                `visual_similarity_cosine_all_pairwise_mean` for PEPO.

        Returns:
            (B, T) weighted advantages, and the base estimator's returns.

        Raises:
            ConfigurationError: nothing was measured and a signal is missing; names it.
            ValueError: a shape is another one, a method is given twice, or the base estimator needs a critic.
        """
        handed = _measured.get()
        if handed is not None:
            base = _base(handed.base_estimator, token_level_rewards, response_mask, index, config, handed)
            return _weighted(base, handed.weights(response_mask))
        chosen = tuple(methods) or (() if name == OF_ANY_METHODS else (available_methods()[name](),))
        if not chosen:
            raise nothing_measured(name)
        given = _given(name, chosen, response_mask != 0, index, has_image, progress, signals)
        if base_estimator == "gae":
            raise ValueError("base_estimator is 'gae', whose values are known in a run with +perception alone")
        base = _base(base_estimator, token_level_rewards, response_mask, index, config)
        return _weighted(base, combined(method_weights(chosen, given)))

    register_adv_est(name)(estimate)


def _weighted(base: Advantages, weights: Tensor | None) -> Advantages:
    advantages, returns = base
    return advantages if weights is None else advantages * weights, returns


def _base(
    name: str, rewards: Tensor, response_mask: Tensor, index: Any, config: Any, handed: StepCredit | None = None
) -> Advantages:
    """What verl computes with its estimator `name`; of several outputs of one rollout too, where keys are known."""
    # Imported late: verl's registry is read in processes that have no trainer.
    from verl import DataProto
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    mask = response_mask.long() if response_mask.dtype == torch.bool else response_mask
    tensors = {"token_level_rewards": rewards, "response_mask": mask}
    if handed is not None and handed.values is not None:
        tensors["values"] = handed.values
    data = DataProto.from_dict(tensors, non_tensors={"uid": np.asarray(index)})
    config = AlgoConfig(**(config or {})) if config is None or isinstance(config, dict) else config
    settings = {key: config.get(key, 1.0) for key in ("gamma", "lam", "norm_adv_by_std_in_grpo")}
    keys = [f"prompt_{row}_0" for row in range(len(rewards))] if handed is None else handed.keys
    data = compute_advantage_for_multi_trajectories(data, keys, name, config=config, **settings)
    return data.batch["advantages"], data.batch["returns"]


def _given(
    name: str, methods: Sequence[Method], mask: Tensor, index: Any, seen: Tensor | None, progress: float, given: Signals
) -> RolloutSignals:
    """The signals of a direct call."""
    wanted = frozenset().union(*(method.signals() for method in methods))
    fields = sorted({"old_log_prob", *(signal.field for signal in wanted)}) if wanted else []
    if missing := [field for field in fields if field not in given]:
        raise nothing_measured(name, missing)
    if len({method.name for method in methods}) < len(methods):
        raise ValueError(f"methods holds {[method.name for method in methods]}; each may be given once")
    if unknown := sorted(set(given) - {"old_log_prob", *fields}):
        raise TypeError(f"{name} takes {', '.join(fields)} and not {', '.join(unknown)}")
    has_image = mask.new_ones(len(mask)) if seen is None else torch.as_tensor(seen, device=mask.device) != 0
    check_rows("has_image", has_image, len(mask))
    return RolloutSignals(
        response_mask=mask,
        has_image=has_image,
        group_ids=group_index(np.asarray(index).tolist(), mask),
        old_log_prob=given.get("old_log_prob", torch.zeros_like(mask, dtype=torch.float32)),
        measured={signal: given[signal.field] for signal in wanted},
        progress=progress,
    )


for _name in REGISTERED:
    register(_name)
