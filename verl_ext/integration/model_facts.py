# SPDX-License-Identifier: Apache-2.0
"""What ablations must know about a model, read from its configuration and processor."""

from __future__ import annotations

from verl.workers.config import HFModelConfig

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
        merge_size=int(image_processor.merge_size),
        temporal_patch_size=int(image_processor.temporal_patch_size),
        image_mean=tuple(image_processor.image_mean),
        image_std=tuple(image_processor.image_std),
    )
