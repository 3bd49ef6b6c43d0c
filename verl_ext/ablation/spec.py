# SPDX-License-Identifier: Apache-2.0
"""Which ablation takes the image away, and with what strength."""

from __future__ import annotations

from dataclasses import dataclass, field

KINDS = ("drop_vision", "random_patch", "blank", "gaussian_noise", "vp_diffusion", "shuffle_text")


@dataclass(frozen=True)
class AblationSpec:
    """How an image is taken away.

    Attributes:
        kind: "drop_vision" removes the image tokens from the sequence; the others keep them and change the pixels:
            "random_patch" blackens patches, "blank" paints the image in one shade, "gaussian_noise" adds noise, and
            "vp_diffusion" trades the image for noise at constant variance. "shuffle_text" is a control: the image
            stays, and the words of the prompt change their order.
        probability: chance that a patch turns black (random_patch only).
        level: shade of every pixel, 0 black and 1 white (blank only).
        sigma: standard deviation of the noise, in units of the normalised pixels (gaussian_noise only).
        diffusion_step: of 1000 steps of forward diffusion (vp_diffusion only).
        diffusion_anneal: whether `diffusion_step` falls towards 0 over the run instead of staying (vp_diffusion only).
        scope: "prompt" shares one mask or noise among the responses to a prompt; "response" draws one for each.
    """

    kind: str = field(default="drop_vision", metadata={"choices": KINDS})
    probability: float = field(default=0.6, metadata={"bounds": (0.0, 1.0)})
    level: float = field(default=0.0, metadata={"bounds": (0.0, 1.0)})
    sigma: float = field(default=2.0, metadata={"bounds": (1e-6, 1e6)})
    diffusion_step: int = field(default=500, metadata={"bounds": (1, 1000)})
    diffusion_anneal: bool = False
    scope: str = field(default="prompt", metadata={"choices": ("prompt", "response")})

    @property
    def leaves_image(self) -> bool:
        """Whether the strength is zero, so that nothing is taken away."""
        return self.kind == "random_patch" and self.probability == 0.0
