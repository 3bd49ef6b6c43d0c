# SPDX-License-Identifier: Apache-2.0
"""Vision-language models that are refused, and why."""

from __future__ import annotations

NO_PROCESSOR = "verl 0.9 has no image processor for it, so prompts would lose their images"

REFUSED = {
    "internvl": NO_PROCESSOR,
    "internvl_chat": NO_PROCESSOR,
    "gemma3": NO_PROCESSOR,
    "gemma3n": NO_PROCESSOR,
    "gemma4": "its patches, positions and features are not laid out as the ablations know them",
    "mllama": "its images are read by cross-attention: it has no image tokens to take away",
    "kimi_vl": NO_PROCESSOR,
    "kimi_k25": NO_PROCESSOR,
    "minicpmo": NO_PROCESSOR,
    "minicpmv": NO_PROCESSOR,
    "llava": NO_PROCESSOR,
    "llava_next": NO_PROCESSOR,
    "llava_onevision": NO_PROCESSOR,
    "idefics3": NO_PROCESSOR,
    "smolvlm": NO_PROCESSOR,
    "mistral3": NO_PROCESSOR,
    "pixtral": NO_PROCESSOR,
    "llama4": NO_PROCESSOR,
    "phi3_v": NO_PROCESSOR,
    "phi4mm": NO_PROCESSOR,
    "phi4_multimodal": NO_PROCESSOR,
    "molmo": NO_PROCESSOR,
    "qwen2_5_omni": NO_PROCESSOR,
    "qwen3_omni_moe": NO_PROCESSOR,
}
"""By `model_type`."""
