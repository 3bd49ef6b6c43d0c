# SPDX-License-Identifier: Apache-2.0
"""PAPO: reward the policy for disagreeing with itself when the image is masked (arXiv 2507.06448).

The terms follow ``verl/workers/actor/dp_actor.py`` of the official code. Deviations: rows without an image weigh
nothing in the perception term, and a token impossible in both views counts as 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from verl_ext.methods.base import LossInputs, LossTerm, Method, bounded, choice
from verl_ext.methods.loss_terms import double_entropy_loss, perception_loss, perception_values, sampled_entropy_term
from verl_ext.methods.registry import register_method
from verl_ext.signals.request import MAIN_VIEW, AblatedLogProb, Signal

__all__ = ["PAPO", "coefficient_schedule", "double_entropy_loss", "perception_loss", "perception_values"]


@register_method
@dataclass(frozen=True)
class PAPO(Method):
    """Hyper-parameters of the perception term, its schedule and the entropy term.

    Of the double entropy only the clean view's half is a loss term: the ablated view carries no gradient, so its half
    is a constant, which is logged as `perception/ablated_nll` instead.
    """

    name: ClassVar[str] = "papo"

    coef: float = bounded(0.02, 0.0, 1e6)
    schedule: str = choice("fixed", "annealing")
    end_coef: float = bounded(0.0, 0.0, 1e6)
    anneal_fraction: float = bounded(0.5, 0.0, 1.0)
    clip: float | None = bounded(None, 1e-6, 10.0)
    top_fraction: float | None = bounded(None, 1e-6, 1.0)
    entropy_coef: float = bounded(0.0, 0.0, 1e6)
    view: str = MAIN_VIEW

    def signals(self) -> frozenset[Signal]:
        acts = self.coef or self._anneals_from_zero()
        return frozenset({AblatedLogProb(self.view)}) if acts else frozenset()

    def loss_terms(self, inputs: LossInputs) -> list[LossTerm]:
        coef = self.coefficient(inputs.steps_done, inputs.total_steps)
        terms = []
        if coef:
            terms.append(LossTerm("perception_kl", self._divergence(inputs), -coef))
        # As released, the entropy term fades with the perception term; without one it stands alone.
        entropy_coef = self.entropy_coef * (coef / self.coef if self.coef else 1.0)
        if entropy_coef:
            terms.append(sampled_entropy_term(inputs, entropy_coef))
        return terms

    def coefficient(self, steps_done: int, total_steps: int) -> float:
        """Weight of the perception term after `steps_done` of `total_steps` training steps."""
        if self.schedule == "fixed":
            return self.coef
        anneal_steps = max(1, int(total_steps * self.anneal_fraction))
        return coefficient_schedule(steps_done, start=self.coef, end=self.end_coef, total_steps=anneal_steps)

    def _anneals_from_zero(self) -> bool:
        return self.schedule == "annealing" and self.end_coef > 0.0

    def _divergence(self, inputs: LossInputs) -> Tensor:
        return perception_values(
            inputs.log_prob,
            inputs[AblatedLogProb(self.view)],
            inputs.response_mask,
            clip=self.clip,
            top_fraction=self.top_fraction,
            has_image=inputs.has_image,
        )


def coefficient_schedule(step: int, *, start: float, end: float, total_steps: int) -> float:
    """Linear annealing from ``start`` at step 0 to ``end`` at ``total_steps`` and after.

    Scale both entropy coefficients by the ratio of the result to the configured perception coefficient, as the official
    ``core_algos.AnnealingKLController`` is used.

    Raises:
        ValueError: ``step`` < 0 or ``total_steps`` < 1.
    """
    if step < 0:
        raise ValueError(f"step is {step!r}; it must be >= 0")
    if total_steps < 1:
        raise ValueError(f"total_steps is {total_steps!r}; it must be >= 1")
    return start + (end - start) * min(step / total_steps, 1.0)
