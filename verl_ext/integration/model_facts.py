# SPDX-License-Identifier: Apache-2.0
"""What ablations must know about a model, read from its configuration and processor."""

from __future__ import annotations

from typing import Any

from verl.workers.config import HFModelConfig

from verl_ext.ablation import PatchFormat
from verl_ext.errors import ConfigurationError
from verl_ext.integration.ablated_batch import ModelFacts


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
