# SPDX-License-Identifier: Apache-2.0
"""What ablations must know about a model, read from its configuration and processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verl_ext.ablation import PatchFormat
from verl_ext.errors import ConfigurationError
from verl_ext.models.available import family_of
from verl_ext.models.family import QWEN_IMAGE_TOKENS, Family

if TYPE_CHECKING:
    from verl.workers.config import HFModelConfig


@dataclass(frozen=True)
class ModelFacts:
    """What an ablation must know about the model.

    Attributes:
        family: the model's.
        image_token_id: id of the placeholder tokens that image features replace.
        video_token_id: id of those that video features replace; None if the model knows no videos.
        patch_format: how the processor writes patch rows.
        special_token_ids: ids that are no text, those of the chat's markers and of images among them.
    """

    family: Family
    image_token_id: int
    video_token_id: int | None
    patch_format: PatchFormat
    special_token_ids: frozenset[int] = frozenset()

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        """Ids of all placeholder tokens that vision features replace."""
        return tuple(token for token in (self.image_token_id, self.video_token_id) if token is not None)


def model_facts(model_config: HFModelConfig) -> ModelFacts:
    """Read them, where the model's family says that they are.

    Raises:
        ConfigurationError: verl has loaded no image processor, or the configuration has no image token, or the
            processor does not say how it writes patches.
    """
    hf_config, processor = model_config.hf_config, model_config.processor
    family = family_of(hf_config.model_type)
    image_token_id = getattr(hf_config, family.image_token, None)
    if getattr(processor, "image_processor", None) is None:
        raise _unusable(model_config, "verl has loaded no image processor for it (its warning above says why)")
    if image_token_id is None:
        raise _unusable(model_config, f"its configuration has no {family.image_token}, so no image tokens to take away")
    try:
        pixels = patch_format(processor)
    except AttributeError as error:
        raise _unusable(model_config, f"its image processor writes patches in another way ({error})") from error
    return ModelFacts(
        family=family,
        image_token_id=image_token_id,
        video_token_id=getattr(hf_config, family.video_token, None),
        patch_format=pixels,
        special_token_ids=frozenset(model_config.tokenizer.all_special_ids),
    )


def image_tokens(processor: Any) -> tuple[str, ...]:
    """Tokens that stand for images or frame them, of the model that verl loaded `processor` for; Qwen-VL's for None."""
    config = getattr(processor, "config", None)
    return QWEN_IMAGE_TOKENS if config is None else family_of(config.model_type).image_tokens


def sends_all_image_tokens(processor: Any) -> bool:
    """Whether verl gives vLLM every image token of an image of the model that it loaded `processor` for."""
    config = getattr(processor, "config", None)
    return config is not None and not family_of(config.model_type).sends_one_image_token


def patch_format(processor: Any) -> PatchFormat:
    """How a processor writes the patch rows of images."""
    images = processor.image_processor
    return PatchFormat(
        mean=tuple(images.image_mean),
        std=tuple(images.image_std),
        merge_size=int(images.merge_size),
        temporal_patch_size=int(images.temporal_patch_size),
    )


def _unusable(model_config: HFModelConfig, reason: str) -> ConfigurationError:
    return ConfigurationError(
        key="actor_rollout_ref.model.path",
        value=f"{model_config.path} (model_type {model_config.hf_config.model_type})",
        remedy=f"{reason}; choose another model, or drop +perception",
    )
