# SPDX-License-Identifier: Apache-2.0
"""Rows with images in every place, for any family, and each one by transformers' own model, one row at a time."""

from dataclasses import dataclass

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from support import families, tiny

# What stands in each prompt, in order: texts, and (width, height) of images.
PROMPTS = {
    "image first": [(64, 64), "what color is the shape?"],
    "two adjacent": ["look: ", (96, 64), (64, 96), "is there a circle?"],
    "three images": [(64, 64), "and ", (64, 96), "and ", (96, 96), "is it blue?"],
    "image at the end": ["what shape is in the image? ", (96, 64), "\n"],
    "system prompt, images between words": ["be short.\n", "is ", (64, 64), "like ", (64, 64), "at all?\n"],
    "no image": ["how much is two and two?"],
    "wide image": ["here: ", (192, 32), "which colors?"],
    "image directly before the response": ["is it teal? ", (64, 96, "open")],
}
RESPONSES = ["<think> a red circle </think> \\boxed{red}", "\\boxed{no}", "a blue rectangle is there, it is teal"]
WITHOUT = list(PROMPTS).index("no image")


@dataclass
class Reference:
    """A row by transformers alone: hidden states of all layers, and logits that predict the response.

    `blind` has the image taken away: by a mask where all layers are attention, else by leaving its tokens out.
    """

    hidden_states: tuple
    clean: torch.Tensor
    blind: torch.Tensor
    image: torch.Tensor


def load(name):
    return AutoModelForImageTextToText.from_pretrained(families.path(name), attn_implementation="sdpa").eval()


def rows(name, model):
    """One row for each prompt; responses of different lengths."""
    processor = AutoProcessor.from_pretrained(families.path(name))
    return [
        _row(processor, families.TINY[name], parts, RESPONSES[index % len(RESPONSES)], model, seed=7 * index)
        for index, parts in enumerate(PROMPTS.values())
    ]


def half_with_images(found):
    """Eight rows of which the first four have images and the others none."""
    blind = found[WITHOUT]
    return [*[row for row in found if row.inputs][:4], *[blind] * 4]


def _row(processor, kind, parts, response, model, seed):
    begin, placeholder, end = kind.wrap
    texts, images = [], []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        images.append(tiny.picture(*part[:2], seed=seed + len(images)))
        # An image that stays open ends with its last placeholder.
        texts.append(begin + placeholder + ("" if "open" in part else end))
    inputs = dict(processor(text=["".join(texts)], images=images or None, return_tensors="pt"))
    prompt = inputs["input_ids"][0]
    tail = torch.tensor(processor.tokenizer.encode(response))
    ids = torch.cat([prompt, tail])
    features = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
    return tiny.Row(ids, tiny.positions(ids, features, model), len(tail), features)


@torch.no_grad()
def logits_of(model, row, first=-1, **changed):
    """Hidden states, and the logits that predict the response, the first token's from place `first` of the prompt."""
    given = {"input_ids": row.input_ids[None], "position_ids": row.position_ids[:, None], **row.inputs, **changed}
    output = model(**given, use_cache=False, output_hidden_states=True)
    begin = len(row.input_ids) - row.response_length
    places = torch.arange(begin - 1, len(row.input_ids) - 1)
    places[0] = first % begin
    return output.hidden_states, output.logits[0, places]


def refer(row, model, hybrid=False):
    hidden_states, clean = logits_of(model, row)
    image = row.input_ids == model.config.image_token_id
    blind = _shorter(model, row) if hybrid else _masked(model, row, image)
    return Reference(hidden_states, clean, blind, image)


def _masked(model, row, image):
    """Behind an image, without it, the first token is predicted from what stands before the image."""
    words = (~image[: -row.response_length]).nonzero().flatten()
    return logits_of(model, row, first=int(words[-1]), attention_mask=_without(image))[1]


def _without(image):
    """A mask that closes image tokens to all but themselves: a row without any opening has no softmax."""
    length = len(image)
    blocked = (torch.ones(length, length).triu(1).bool() | image) & ~torch.eye(length, dtype=torch.bool)
    return torch.zeros(1, 1, length, length).masked_fill(blocked, -torch.inf)


def _shorter(model, row):
    """Logits of the row without its image tokens, all others where they were."""
    kept = row.input_ids != model.config.image_token_id
    positions = row.position_ids[:, kept]
    positions[0] = torch.arange(positions.shape[1])
    return logits_of(model, tiny.Row(row.input_ids[kept], positions, row.response_length, {}))[1]
