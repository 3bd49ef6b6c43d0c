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
        against: the arms that it is compared with, seed by seed; the first is its own baseline.
        about: what the arm is, in a table.
    """

    name: str
    label: str
    overrides: tuple[str, ...]
    against: tuple[str, ...]
    about: str


def _method(group: str, *overrides: str, recipe: str = "grpo") -> tuple[str, ...]:
    return (f"+perception={group}", f"recipe={recipe}", *overrides)


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
    Arm("papo_g", "PAPO-G", _method("papo_g"), ("grpo",), "GRPO with PAPO's perception KL, masked patches"),
    Arm("papo_d", "PAPO-D", _method("papo_d", recipe="dapo"), ("dapo", "grpo"), "DAPO with PAPO's perception KL"),
    Arm("pgpo", "PGPO", _method("pgpo"), ("grpo",), "GRPO, advantages weighted by the k3 dependency of each token"),
    Arm("pepo", "PEPO", _method("pepo_g"), ("grpo",), "GRPO, advantages weighted by similarity and entropy"),
    Arm("vgpo", "VGPO", _method("vgpo"), ("grpo",), "GRPO, advantages weighted by similarity, token and response"),
    Arm("vppo", "VPPO", _method("vppo"), ("grpo",), "GRPO, advantages of the most dependent tokens only"),
    Arm(
        "pgpo_papo",
        "PGPO + PAPO",
        _method("pgpo", "perception.methods=[pgpo,papo]"),
        ("grpo", "pgpo", "papo_g"),
        "PGPO's weights and PAPO's term from one view without the image",
    ),
    Arm(
        "vgpo_pepo",
        "VGPO + PEPO",
        _method("vgpo", "perception.methods=[vgpo,pepo]"),
        ("grpo", "vgpo", "pepo"),
        "both weights multiplied; no extra pass",
    ),
    Arm(
        "pgpo_shuffled",
        "PGPO, weights shuffled",
        _method("pgpo", "perception.shuffle_weights=True"),
        ("pgpo", "grpo"),
        "control: PGPO's weights on other tokens of the same response",
    ),
    Arm(
        "papo_text",
        "PAPO, text perturbed",
        _method("papo_g", "perception.ablation.kind=shuffle_text"),
        ("papo_g", "grpo"),
        "control: PAPO's term with the words of the question shuffled and the image left alone",
    ),
)
BY_NAME = {arm.name: arm for arm in ARMS}
