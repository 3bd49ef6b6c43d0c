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
from verl.utils.tensordict_utils import maybe_fix_3d_position_ids

from verl_ext.logs import get_logger
from verl_ext.passes.prompt_groups import prompt_groups
from verl_ext.passes.shared_prompts import SharedPrompts, forget_sharing, shared_prompts
from verl_ext.passes.token_layout import predictors
from verl_ext.vocabulary import SHARE_PROMPTS

logger = get_logger(__name__)
BOUNDS = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Mean difference of log-probabilities, by the precision of the pass; splits of a batch alone make up to a third."""
SIBLINGS, TOKENS, PROMPTS = 3, 64, 4
"""Responses that are compared, and how much of each at most: so many tokens, and lengths of their prompt."""


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
        return self._allowed is True

    def _compare(self, data: TensorDict) -> None:
        rows = _few(data)
        shared = shared_prompts(rows)
        if not self._largest(shared is not None):
            return
        found, plain = self._log_probs(rows), self._log_probs(_apart(rows))
        # A rank without a group takes part in the passes alone.
        own = 0.0 if shared is None else _mean_difference(found, plain, shared)
        self._allowed = self._agrees(self._largest(own))

    def _agrees(self, difference: float) -> bool:
        bound = BOUNDS[getattr(self._engine, "_autocast_dtype", torch.bfloat16)]
        if difference <= bound:
            logger.info("shared prompts: log-probabilities differ by %.1e from the plain pass's (mean)", difference)
            return True
        logger.warning(
            "shared prompts: log-probabilities differ by %.1e from the plain pass's (mean; bound %.0e); the run "
            "goes on without sharing, as with perception.share_prompts=False",
            difference,
            bound,
        )
        return False

    def _largest(self, value: float) -> float:
        """Of all ranks."""
        values = torch.tensor([value], device=get_device_id(), dtype=torch.float32)
        dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self._engine.get_data_parallel_group())
        return values.item()

    def _log_probs(self, rows: TensorDict) -> Tensor:
        """(N,) of the response tokens."""
        with torch.no_grad():
            _, output = self._forward_step(rows, loss_function=None, forward_only=True)
        log_probs: Tensor = output["model_output"]["log_probs"].values()
        return log_probs[predictors(rows, packed=True)]


def _apart(rows: TensorDict) -> TensorDict:
    """The same rows, without sharing."""
    apart = rows.copy()
    forget_sharing(apart)
    tu.assign_non_tensor(apart, **{SHARE_PROMPTS: False})
    return apart


def _few(data: TensorDict) -> TensorDict:
    """The first tokens of some responses to one prompt; of a row alone where no prompt has several.

    Few and short, so that they fit wherever a row does, and always worth sharing.
    """
    responses = data["responses"].offsets().diff().tolist()
    groups = [[row for row in rows if responses[row]] for rows in prompt_groups(data)]
    rows = max(groups, key=len)[:SIBLINGS] or [0]
    few = tu.index_select_tensor_dict(data, rows)
    maybe_fix_3d_position_ids(few)
    prompt = len(few["input_ids"].unbind()[0]) - responses[rows[0]]
    kept = [prompt + min(responses[row], TOKENS, PROMPTS * prompt) for row in rows]
    for name in ("input_ids", "position_ids"):
        parts = zip(few[name].unbind(), kept, strict=True)
        few[name] = tu.nested_tensor_from_tensor_list([part[..., :length] for part, length in parts])
    few["responses"] = tu.nested_tensor_from_tensor_list([ids[prompt:] for ids in few["input_ids"].unbind()])
    tu.assign_non_tensor(few, calculate_entropy=False, **{SHARE_PROMPTS: True})
    forget_sharing(few)
    return few


def _mean_difference(found: Tensor, plain: Tensor, shared: SharedPrompts) -> float:
    """Of the responses that branch off behind another's prompt; NaN counts as infinite."""
    branches = shared.saved.bool()[shared.token_rows].to(found.device)
    difference = (found.double() - plain.double())[branches].abs().mean()
    return difference.nan_to_num(nan=torch.inf).item()
