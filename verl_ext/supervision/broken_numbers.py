# SPDX-License-Identifier: Apache-2.0
"""NaN and infinity are found before the optimizer steps, named, and handled as `perception.on_broken` says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from verl_ext.logs import get_logger
from verl_ext.methods.base import Method, RolloutSignals
from verl_ext.signals.request import AblatedLogProb

logger = get_logger(__name__)

STOP, SKIP = "stop", "skip"
ROWS_NAMED = 5
BROKEN_LOSSES = "perception/broken_losses"


class BrokenNumberError(FloatingPointError):
    """A NaN or an infinity where there must be a number."""


class BrokenRows:
    """The responses of one rollout batch that have a broken number.

    Args:
        policy: "stop" raises an error for the first that is found, "skip" leaves them out of the step.
        step: training step, for messages.
        uids: prompt of each response.

    Attributes:
        rows: (B,) bool, true for responses that are left out.
    """

    def __init__(self, policy: str, step: int, uids: Sequence[str]) -> None:
        self.policy, self.step, self.uids = policy, step, uids
        self.rows = torch.zeros(len(uids), dtype=torch.bool)

    def without(self, signals: RolloutSignals, methods: Sequence[Method]) -> RolloutSignals:
        """The signals with their broken responses set aside: nothing of them counts, and their values are 0.

        Of ablated log-probabilities -inf is not broken: a token may be impossible without the image.

        Raises:
            BrokenNumberError: the policy is "stop" and there is one; names signal, methods, prompts and step.
        """
        self._check("old_log_probs", signals.old_log_prob, signals.response_mask, "every method")
        for signal, values in signals.measured.items():
            known = values.masked_fill(values == -torch.inf, 0.0) if isinstance(signal, AblatedLogProb) else values
            users = ", ".join(method.name for method in methods if signal in method.signals())
            self._check(signal.field, known, signals.response_mask, users)
        return _set_aside(signals, self.rows) if self.rows.any() else signals

    def finite(self, weights: Mapping[str, Tensor], response_mask: Tensor) -> dict[str, Tensor]:
        """(B, T) weights of each method, 0 for responses that are left out.

        Raises:
            BrokenNumberError: the policy is "stop" and a weight is broken; names method, prompts and step.
        """
        for name, values in weights.items():
            self._check("advantage weights", values, response_mask, name)
        return {name: values.masked_fill(self.rows[:, None], 0.0) for name, values in weights.items()}

    def _check(self, what: str, values: Tensor, mask: Tensor, users: str) -> None:
        rows = (~torch.isfinite(values) & mask).any(dim=-1)
        if not rows.any():
            return
        uids = [self.uids[row] for row in rows.nonzero().flatten().tolist()]
        text = (
            f"step {self.step}: {what} ({users}) of {int(rows.sum())} responses are NaN or infinite, to the prompts "
            f"{listed(uids)}"
        )
        if self.policy == STOP:
            raise BrokenNumberError(
                f"{text}; the step is not taken. perception.on_broken=skip leaves such responses out"
            )
        logger.warning("%s; they are left out of the step", text)
        self.rows |= rows


def listed(uids: Iterable[str]) -> str:
    """The first few prompts, each once."""
    once = list(dict.fromkeys(uids))
    return f"{', '.join(once[:ROWS_NAMED])}{', ...' if len(once) > ROWS_NAMED else ''}"


def sound_loss(
    loss: Tensor, parts: Mapping[str, Tensor], log_prob: Tensor, *, policy: str, where: Callable[[], str]
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a micro-batch if it is a number; else an error, or with "skip" a loss without a gradient.

    Where the forward pass itself is broken, no loss has a sound gradient; verl's engines then drop the whole step of
    the optimizer, because the norm of the gradient is not finite. The graph is kept all the same: ranks that share
    parameters must all go through it.

    Args:
        loss: scalar.
        parts: the scalars that it is made of, by name.
        log_prob: any tensor that carries the gradient.
        policy: "stop" or "skip".
        where: says training step and prompts, for the message.

    Returns:
        The loss, and with "skip" the metric `perception/broken_losses`: 1 where the loss was replaced, else 0.

    Raises:
        BrokenNumberError: the loss is NaN or infinite and the policy is "stop"; names the parts that are.
    """
    if torch.isfinite(loss):
        return loss, {BROKEN_LOSSES: 0.0} if policy == SKIP else {}
    names = ", ".join(name for name, value in parts.items() if not torch.isfinite(value)) or "their sum"
    text = f"{where()}: the loss is NaN or infinite ({names})"
    if policy == STOP:
        raise BrokenNumberError(f"{text}; the optimizer does not step. perception.on_broken=skip leaves the rows out")
    logger.warning("%s; the rows of the micro-batch are left out of the loss", text)
    return torch.nan_to_num(log_prob).sum() * 0.0, {BROKEN_LOSSES: 1.0}


def _set_aside(signals: RolloutSignals, rows: Tensor) -> RolloutSignals:
    return replace(
        signals,
        response_mask=signals.response_mask & ~rows[:, None],
        has_image=signals.has_image & ~rows,
        old_log_prob=signals.old_log_prob.masked_fill(rows[:, None], 0.0),
        measured={signal: values.masked_fill(rows[:, None], 0.0) for signal, values in signals.measured.items()},
    )
