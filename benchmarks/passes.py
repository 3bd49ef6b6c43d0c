# SPDX-License-Identifier: Apache-2.0
"""Time of the passes that perception methods add, over vanilla verl's old-log-prob pass, through verl's own engine.

Run as `VERL_PLATFORM=cpu python benchmarks/passes.py`. Every variant runs once a round, one after another, and the
ratio is that of the medians; the model has random weights and the proportions of Qwen2.5-VL-7B.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import batches, tiny, workers

HIDDEN, LAYERS, VOCABULARY = 512, 8, 21504
PATCH_COLUMNS = 3 * 2 * 14 * 14
SHORT = "perception.response_only_logits=True"
CLEAN = {
    "compute_loss": False,
    "calculate_entropy": True,
    "micro_batch_size_per_gpu": 1,
    "perception_step": 1,
    "perception_progress": 0.0,
}
ABLATED = {**CLEAN, "calculate_entropy": False}


def write_model(folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL of 8 layers and hidden size 512 with the tiny model's tokenizer."""
    given = tiny.model(torch.float32).config
    text = {
        **given.text_config.to_dict(),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "layer_types": ["full_attention"] * LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 3 * HIDDEN,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
    }
    vision = {
        **given.vision_config.to_dict(),
        "depth": LAYERS,
        "hidden_size": 160,
        "num_heads": 5,
        "intermediate_size": 448,
        "out_hidden_size": HIDDEN,
        "fullatt_block_indexes": [LAYERS - 1],
    }
    ids = {name: getattr(given, name) for name in ("image_token_id", "video_token_id")}
    ids |= {name: getattr(given, name) for name in ("vision_start_token_id", "vision_end_token_id")}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(tiny.MODEL).save_pretrained(folder)
    return model


def row(model: Qwen2_5_VLForConditionalGeneration, image: int, text: int, response: int, seed: int) -> tiny.Row:
    """One prompt of `text` tokens and a square image of `image` tokens, and a response."""
    generator, config = torch.Generator().manual_seed(seed), model.config
    words = torch.randint(300, VOCABULARY, (text + response,), generator=generator)
    side = int(image**0.5)
    assert side * side == image
    block = [config.vision_start_token_id, *[config.image_token_id] * image, config.vision_end_token_id]
    ids = torch.cat([torch.tensor(block), words])
    grid = torch.tensor([[1, 2 * side, 2 * side]])
    inputs = {"pixel_values": torch.randn(4 * image, PATCH_COLUMNS, generator=generator), "image_grid_thw": grid}
    return tiny.Row(ids, tiny.positions(ids, inputs, model), response, inputs)


def passes(model_path: Path, rows: list[tiny.Row]) -> dict[str, Callable[[], object]]:
    """What is timed, by name; the first is vanilla verl's."""

    def build(*overrides: str) -> object:
        return workers.build(*overrides, f"actor_rollout_ref.model.path={model_path}")

    def clean(worker: object) -> Callable[[], object]:
        return lambda: worker.compute_log_prob(batches.batch(rows, **CLEAN))

    def ablated(worker: object) -> Callable[[], object]:
        return lambda: worker.compute_ablated_log_prob(batches.batch(rows, **ABLATED))

    timed = {"old log-probs, vanilla verl": clean(build("algorithm.adv_estimator=grpo"))}
    for suffix, short in (("", []), (", response-only logits", [SHORT])):
        pgpo, papo = build("+perception=pgpo", *short), build("+perception=papo_g", *short)
        timed[f"old log-probs, pgpo{suffix}"] = clean(pgpo)
        timed[f"old log-probs with similarity, pepo{suffix}"] = clean(build("+perception=pepo_g", *short))
        timed[f"ablated, drop_vision{suffix}"] = ablated(pgpo)
        timed[f"ablated, random_patch{suffix}"] = ablated(papo)
    return timed


def medians(timed: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each, over rounds in which every one runs once; one round before does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds + 1):
        for name, call in timed.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=int, default=1024, help="image tokens, a square number")
    parser.add_argument("--text", type=int, default=128, help="text tokens of the prompt")
    parser.add_argument("--response", type=int, default=512, help="response tokens")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, workers.process_group():
        model = write_model(Path(folder))
        rows = [row(model, given.image, given.text, given.response, seed) for seed in range(given.rows)]
        result = medians(passes(Path(folder), rows), given.rounds)
    print(f"\n{given.rows} rows of {given.image} image, {given.text} text and {given.response} response tokens\n")
    print("| pass | s | over vanilla |\n|---|---|---|")
    vanilla = next(iter(result.values()))
    for name, seconds in result.items():
        print(f"| {name} | {seconds:.2f} | {seconds / vanilla:.2f} |")


if __name__ == "__main__":
    main()
