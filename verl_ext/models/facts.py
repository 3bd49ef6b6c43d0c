# SPDX-License-Identifier: Apache-2.0
"""What ablations must know about a model, read from its configuration and processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verl_ext.ablation import PatchFormat
from verl_ext.errors import ConfigurationError

if TYPE_CHECKING:
    from verl.workers.config import HFModelConfig


@dataclass(frozen=True)
class ModelFacts:
    """What an ablation must know about the model.

    Attributes:
        image_token_id: id of the placeholder tokens that image features replace.
        video_token_id: id of those that video features replace; None if the model knows no videos.
        patch_format: how the processor writes patch rows.
        special_token_ids: ids that are no text, those of the chat's markers and of images among them.
    """

    image_token_id: int
    video_token_id: int | None
    patch_format: PatchFormat
    special_token_ids: frozenset[int] = frozenset()

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        """Ids of all placeholder tokens that vision features replace."""
        return tuple(token for token in (self.image_token_id, self.video_token_id) if token is not None)


def model_facts(model_config: HFModelConfig) -> ModelFacts:
    """Read them.

    Raises:
        ConfigurationError: the model has no image processor or no image token, hence no images to take away.
    """
    hf_config, processor = model_config.hf_config, model_config.processor
    image_processor = getattr(processor, "image_processor", None)
    image_token_id = getattr(hf_config, "image_token_id", None)
    if image_processor is None or image_token_id is None:
        raise ConfigurationError(
            key="actor_rollout_ref.model.path",
            value=model_config.path,
            remedy="perception methods need a vision-language model with an image processor and an image token, "
            "such as Qwen2.5-VL; without one, drop +perception",
        )
    return ModelFacts(
        image_token_id=image_token_id,
        video_token_id=getattr(hf_config, "video_token_id", None),
        patch_format=patch_format(processor),
        special_token_ids=frozenset(model_config.tokenizer.all_special_ids),
    )


def patch_format(processor: Any) -> PatchFormat:
    """How a Qwen-VL processor writes the patch rows of images."""
    images = processor.image_processor
    return PatchFormat(
        mean=tuple(images.image_mean),
        std=tuple(images.image_std),
        merge_size=int(images.merge_size),
        temporal_patch_size=int(images.temporal_patch_size),
    )
