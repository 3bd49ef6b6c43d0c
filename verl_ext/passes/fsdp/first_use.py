# SPDX-License-Identifier: Apache-2.0
"""Before prompts are shared for the first time: does a pass that shares them find what the plain one finds?"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id

from verl_ext.logs import get_logger
from verl_ext.passes.prompt_groups import prompt_groups
from verl_ext.passes.shared_prompts import shared_prompts
from verl_ext.passes.token_layout import predictors
from verl_ext.vocabulary import SHARE_PROMPTS

logger = get_logger(__name__)
BOUNDS = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Mean difference of log-probabilities, by the precision of the pass; splits of a batch alone make up to a third."""
SIBLINGS = 2


class FirstUse:
    """Compares both passes over a few rows of the first batch that has a group, on all ranks together."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._forward_step = engine.forward_step
        self._allowed: bool | None = None

    def allows(self, data: TensorDict) -> bool:
        """Whether prompts are to be shared; looks at `data` until a group was compared, then knows.

        Every rank must call it for the same pass.
        """
        if self._allowed is None:
            self._compare(data)
        return self._allowed is not False

    def _compare(self, data: TensorDict) -> None:
        rows = _few(data)
        shares = shared_prompts(_sample(data, rows, share=True)) is not None
        # Asked before anything runs: in a run without groups it is asked in every pass.
        if not self._most_of_any_rank(float(shares)):
            return
        plain, shared = (self._log_probs(data, rows, share) for share in (False, True))
        difference = self._most_of_any_rank(_mean_difference(plain, shared) if shares else 0.0)
        bound = BOUNDS[getattr(self._engine, "_autocast_dtype", torch.bfloat16)]
        self._allowed = difference <= bound
        if self._allowed:
            logger.info("shared prompts: log-probabilities differ by %.1e from the plain pass's (mean)", difference)
        else:
            logger.warning(
                "shared prompts: log-probabilities differ by %.1e from the plain pass's (mean; bound %.0e); the run "
                "goes on without sharing, as with perception.share_prompts=False",
                difference,
                bound,
            )

    def _log_probs(self, data: TensorDict, rows: list[int], share: bool) -> Tensor:
        """(N,) of the response tokens."""
        few = _sample(data, rows, share)
        with torch.no_grad():
            _, output = self._forward_step(few, loss_function=None, forward_only=True)
        log_probs: Tensor = output["model_output"]["log_probs"].values()
        return log_probs[predictors(few, packed=True)]

    def _most_of_any_rank(self, value: float) -> float:
        most = torch.tensor(value, device=get_device_id(), dtype=torch.float64)
        dist.all_reduce(most, op=dist.ReduceOp.MAX, group=self._engine.get_data_parallel_group())
        return most.item()


def _sample(data: TensorDict, rows: list[int], share: bool) -> TensorDict:
    few = tu.index_select_tensor_dict(data, rows)
    tu.assign_non_tensor(few, calculate_entropy=False, **{SHARE_PROMPTS: share})
    return few


def _few(data: TensorDict) -> list[int]:
    """Rows of a group, and one that is not of it where there is any."""
    groups = sorted(prompt_groups(data), key=len, reverse=True)
    return groups[0][:SIBLINGS] + [rows[0] for rows in groups[1:2]]


def _mean_difference(plain: Tensor, shared: Tensor) -> float:
    """NaN counts as infinite."""
    return (plain.double() - shared.double()).abs().mean().nan_to_num(nan=torch.inf).item()
