# SPDX-License-Identifier: Apache-2.0
"""DVRP: depend on what masking removes, ignore what noise disturbs (arXiv 2601.06801, second-hand).

No code was published and the formula was read in secondary sources. Deviation: both views are measured once a step
without gradient, as PAPO's is, so the paper's entropy term over the two views is a constant; it is logged as the
views' `ablated_nll` and is no loss term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from verl_ext.methods.base import LossInputs, LossTerm, Method, bounded
from verl_ext.methods.loss_terms import perception_values
from verl_ext.methods.registry import register_method
from verl_ext.signals.request import MAIN_VIEW, AblatedLogProb, Signal


@register_method
@dataclass(frozen=True)
class DVRP(Method):
    """``- necessity_coef * k3(clean, masked) + robustness_coef * k3(clean, noised)``, per-token averages of each.

    Attributes:
        necessity_coef: weight of the divergence from the masked view, which is maximised.
        robustness_coef: weight of the divergence from the noised view, which is minimised.
        view: name of the masked view.
        noise_view: name of the noised view.
    """

    name: ClassVar[str] = "dvrp"
    excludes: ClassVar[Mapping[str, str]] = {
        "papo": "its perception term is dvrp's necessity term, which would count twice",
    }

    necessity_coef: float = bounded(0.01, 0.0, 1e6)
    robustness_coef: float = bounded(0.01, 0.0, 1e6)
    view: str = MAIN_VIEW
    noise_view: str = "noised"

    def signals(self) -> frozenset[Signal]:
        return frozenset(AblatedLogProb(view) for _, view, coef in self._terms() if coef)

    def loss_terms(self, inputs: LossInputs) -> list[LossTerm]:
        return [
            LossTerm(
                name,
                perception_values(
                    inputs.log_prob, inputs[AblatedLogProb(view)], inputs.response_mask, has_image=inputs.has_image
                ),
                coef,
            )
            for name, view, coef in self._terms()
            if coef
        ]

    def _terms(self) -> tuple[tuple[str, str, float], ...]:
        """Name, view and signed coefficient of each term."""
        return (
            ("necessity_kl", self.view, -self.necessity_coef),
            ("robustness_kl", self.noise_view, self.robustness_coef),
        )
