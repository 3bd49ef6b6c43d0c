# SPDX-License-Identifier: Apache-2.0
"""Which ablation takes the image away, and with what strength."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AblationSpec:
    """How an image is taken away.

    Attributes:
        kind: "drop_vision" removes the image tokens from the sequence; "random_patch" blackens patches.
        probability: chance that a patch turns black (random_patch only).
        scope: "prompt" shares one mask among the responses to a prompt; "response" draws one for each.
    """

    kind: str = field(default="drop_vision", metadata={"choices": ("drop_vision", "random_patch")})
    probability: float = field(default=0.6, metadata={"bounds": (0.0, 1.0)})
    scope: str = field(default="prompt", metadata={"choices": ("prompt", "response")})
