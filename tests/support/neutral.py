# SPDX-License-Identifier: Apache-2.0
"""For each method a group, and the setting under which it leaves verl's advantages alone and measures nothing."""

NEUTRAL = {
    "papo_g": ["perception.papo.coef=0"],
    "pgpo": ["perception.pgpo.threshold=0", "perception.pgpo.boost=0"],
    "pepo_g": ["perception.pepo.strength=0"],
    "vgpo": ["perception.vgpo.token_reweighting=False", "perception.vgpo.trajectory_reweighting=False"],
    "vppo": ["perception.vppo.top_fraction=1", "perception.vppo.floor=1"],
    "tor": [f"perception.tor.{part}_weight=1" for part in ("reasoning", "perception", "other")],
    "vepo": ["perception.vepo.top_fraction=1"],
    "dvrp": ["perception.dvrp.necessity_coef=0", "perception.dvrp.robustness_coef=0"],
}
WEIGHTING = ("pgpo", "pepo_g", "vgpo", "vppo", "tor", "vepo")
"""Groups whose method weights advantages."""
