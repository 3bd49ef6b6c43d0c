# SPDX-License-Identifier: Apache-2.0
"""The committed tiny Qwen2.5-VL, its processor, and prompts with any number of images."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "assets" / "tiny-qwen2.5-vl"


@cache
def processor():
    return AutoProcessor.from_pretrained(MODEL)


def model(dtype=torch.float64, attention="sdpa"):
    return AutoModelForImageTextToText.from_pretrained(MODEL, dtype=dtype, attn_implementation=attention).eval()


@dataclass
class Row:
    """One prompt and response: ids (L,), rotary and text positions (4, L), and the processor's image features."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    response_length: int
    inputs: dict


def picture(width, height, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def row(sizes, question, response, vlm, seed=0):
    """A row whose prompt has one image per (width, height) in `sizes`."""
    content = [{"type": "image"} for _ in sizes] + [{"type": "text", "text": question}]
    text = processor().apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = [picture(*size, seed=seed + index) for index, size in enumerate(sizes)] or None
    inputs = dict(processor()(text=[text], images=images, return_tensors="pt"))
    prompt = inputs.pop("input_ids")[0]
    inputs.pop("attention_mask")
    tail = torch.tensor(processor().tokenizer.encode(response))
    ids = torch.cat([prompt, tail])
    features = {k: v for k, v in inputs.items() if k in ("pixel_values", "image_grid_thw")}
    return Row(ids, positions(ids, features, vlm), len(tail), features)


def positions(ids, features, vlm):
    """(4, L): token counts, then the three rotary rows of Qwen2.5-VL."""
    types = (ids == vlm.config.image_token_id).int()[None]
    rope, _ = vlm.model.get_rope_index(ids[None], types, features.get("image_grid_thw"))
    return torch.cat([torch.arange(len(ids))[None], rope[:, 0]])
