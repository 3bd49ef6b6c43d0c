# SPDX-License-Identifier: Apache-2.0
"""The arms of the comparison: what differs between them, and which arm each is compared with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One configuration, trained with every seed.

    Attributes:
        name: of its files.
        label: in tables and plots.
        overrides: arguments to main_ppo beyond what all arms share.
        against: the arms that it is compared with, seed by seed.
        about: what the arm is, in a table.
        is_control: whether it puts the credit where the image does not say it belongs.
    """

    name: str
    label: str
    overrides: tuple[str, ...]
    against: tuple[str, ...]
    about: str
    is_control: bool = False

    def with_seed(self, seed: int) -> tuple[str, ...]:
        """Its overrides, and the seed of what a method draws."""
        perceives = any(override.startswith("+perception=") for override in self.overrides)
        return (*self.overrides, f"perception.seed={seed}") if perceives else self.overrides


def _method(group: str, *overrides: str, recipe: str = "grpo") -> tuple[str, ...]:
    return (f"+perception={group}", f"recipe={recipe}", *overrides)


PAPO_COEF = 0.01
"""PAPO's without a reference KL."""
TEXT_COEF = 0.006
"""Of its control: shuffled text moves log-probabilities further than masks do. The page says how large the term was."""

ARMS = (
    Arm(
        "grpo",
        "GRPO",
        ("algorithm.adv_estimator=grpo", "+recipe=grpo"),
        (),
        "verl's own GRPO: clip 0.2, no KL, token mean",
    ),
    Arm(
        "dapo",
        "DAPO",
        ("algorithm.adv_estimator=grpo", "+recipe=dapo"),
        ("grpo",),
        "verl's own: clip 0.2 / 0.28, groups of equal accuracy replaced by new ones",
    ),
    Arm(
        "papo_g",
        "PAPO-G",
        _method("papo_g_no_kl"),
        ("grpo",),
        "GRPO with PAPO's perception KL between masked and whole image, and its entropy term (0.03)",
    ),
    Arm(
        "papo_d",
        "PAPO-D",
        _method("papo_d", recipe="dapo"),
        ("dapo", "grpo"),
        "DAPO with PAPO's perception KL and its entropy term (0.03)",
    ),
    Arm("pgpo", "PGPO", _method("pgpo"), ("grpo",), "GRPO, advantages weighted by the k3 dependency of each token"),
    Arm("pepo", "PEPO", _method("pepo_g"), ("grpo",), "GRPO, advantages weighted by similarity and entropy"),
    Arm("vgpo", "VGPO", _method("vgpo"), ("grpo",), "GRPO, advantages weighted by similarity, token and response"),
    Arm(
        "vppo",
        "VPPO",
        _method("vppo"),
        ("grpo",),
        "GRPO, advantages of the most dependent tokens only, and its entropy term (0.06)",
    ),
    Arm(
        "pgpo_papo",
        "PGPO + PAPO",
        _method(
            "pgpo",
            "perception.methods=[pgpo,papo]",
            f"+perception.papo.coef={PAPO_COEF}",
            "+perception.papo.entropy_coef=0.03",
        ),
        ("grpo", "pgpo", "papo_g"),
        "PGPO's weights and PAPO's terms, both from one view without the image: a weight and a loss do not interfere",
    ),
    Arm(
        "vgpo_pepo",
        "VGPO + PEPO",
        _method("vgpo", "perception.methods=[vgpo,pepo]"),
        ("grpo", "vgpo", "pepo"),
        "both weights multiplied: the last layer's similarity and that of all layers; no extra pass",
    ),
    Arm(
        "pgpo_shuffled",
        "PGPO-shuffled",
        _method("pgpo", "perception.shuffle_weights=True"),
        ("pgpo", "grpo"),
        "control: PGPO's weights on other tokens of the same response",
        is_control=True,
    ),
    Arm(
        "papo_text",
        f"PAPO-text ({TEXT_COEF})",
        _method("papo_g_no_kl", "perception.ablation.kind=shuffle_text", f"perception.papo.coef={TEXT_COEF}"),
        ("papo_g", "grpo"),
        "control: PAPO's term with shuffled text in place of masks, its coefficient lowered so that it is as large",
        is_control=True,
    ),
    Arm(
        "papo_text_full",
        f"PAPO-text ({PAPO_COEF})",
        _method("papo_g_no_kl", "perception.ablation.kind=shuffle_text"),
        ("papo_g", "grpo"),
        "control: the same with PAPO's own coefficient",
        is_control=True,
    ),
)
BY_NAME = {arm.name: arm for arm in ARMS}
