# SPDX-License-Identifier: Apache-2.0
"""verl's actor workers in this process, on Qwen2.5-VL models with random weights, and batches for them.

The device is verl's platform: CUDA where torch finds it, else the CPU; `VERL_PLATFORM=cpu` chooses the CPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

# verl chooses its platform when it is first imported.
os.environ["VERL_PLATFORM"] = os.environ.get("VERL_PLATFORM") or ("cuda" if torch.cuda.is_available() else "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import batches, tiny, workers
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLConfig
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

ON_CPU = os.environ["VERL_PLATFORM"] == "cpu"
PIXELS_PER_TOKEN = 28
PATCHES_PER_TOKEN = 4
PATCH_COLUMNS = 3 * 2 * 14 * 14
# Below lie the special tokens of the tiny model's tokenizer, which all models here have.
FIRST_WORD = 300

Pass = Callable[[list[tiny.Row]], object]


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2.5-VL: the text model's, and what `vision` says."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    vocabulary: int
    tied: bool
    mrope_section: tuple[int, int, int]
    vision: dict[str, Any]


def _released_vision(out: int, intermediate: int = 3420) -> dict[str, Any]:
    return {
        "depth": 32,
        "hidden_size": 1280,
        "num_heads": 16,
        "intermediate_size": intermediate,
        "out_hidden_size": out,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    }


# "small" has about the proportions of the 7B model.
SHAPES = {
    "small": Shape(
        hidden=512,
        layers=8,
        heads=8,
        key_value_heads=2,
        intermediate=1536,
        vocabulary=21504,
        tied=True,
        mrope_section=(8, 12, 12),
        vision={
            "depth": 8,
            "hidden_size": 160,
            "num_heads": 5,
            "intermediate_size": 448,
            "out_hidden_size": 512,
            "fullatt_block_indexes": [7],
        },
    ),
    "3b": Shape(2048, 36, 16, 2, 11008, 151936, True, (16, 24, 24), _released_vision(2048)),
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, False, (16, 24, 24), _released_vision(3584)),
    "32b": Shape(5120, 64, 40, 8, 27648, 152064, False, (16, 24, 24), _released_vision(5120, 3456)),
}

# What a run on GPUs has and the tests' configuration, made for the CPU, does not.
GPU = [
    "trainer.device=cuda",
    "actor_rollout_ref.model.use_remove_padding=True",
    "actor_rollout_ref.model.override_config.attn_implementation=flash_attention_2",
    "actor_rollout_ref.actor.use_torch_compile=True",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile=True",
    "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.reduce_dtype=fp32",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.buffer_dtype=fp32",
]


def model_config(name: str, layers: int | None = None) -> Qwen2_5_VLConfig:
    """The configuration of `SHAPES[name]`, with fewer layers in text model and vision tower if `layers` is given."""
    shape, given = SHAPES[name], tiny.model(torch.float32).config
    count = layers or shape.layers
    text = {
        **given.text_config.to_dict(),
        "hidden_size": shape.hidden,
        "num_hidden_layers": count,
        "layer_types": ["full_attention"] * count,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": shape.tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(shape.mrope_section)},
    }
    vision = {**given.vision_config.to_dict(), **shape.vision}
    if layers:
        vision |= {"depth": layers, "fullatt_block_indexes": [layers - 1]}
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {name: getattr(given, name) for name in tokens}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=shape.tied, **ids)


def write_model(folder: Path, config: Qwen2_5_VLConfig, pixels: int | None = None) -> Path:
    """Random weights, with the tiny model's tokenizer; images are scaled to so many `pixels`, if given."""
    torch.manual_seed(0)
    with torch.device("cpu" if ON_CPU else "cuda"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32 if ON_CPU else torch.bfloat16)
    model.save_pretrained(folder)
    return write_processor(folder, pixels)


def write_processor(folder: Path, pixels: int | None = None) -> Path:
    """The tiny model's, with its tokenizer; images are scaled to so many `pixels`, if given."""
    processor = AutoProcessor.from_pretrained(tiny.MODEL)
    if pixels:
        processor.image_processor.size = {"shortest_edge": pixels, "longest_edge": pixels}
    processor.save_pretrained(folder)
    return folder


def grid(tokens: int) -> tuple[int, int]:
    """(height, width) in tokens of the image closest to a square that has so many."""
    height = next(side for side in range(int(tokens**0.5), 0, -1) if tokens % side == 0)
    return height, tokens // height


class Rows:
    """Makes rows of random tokens and noise images for a model."""

    def __init__(self, config: Qwen2_5_VLConfig) -> None:
        self._config = config
        with torch.device("meta"):
            self._model = AutoModelForImageTextToText.from_config(config)

    def __call__(self, count: int, *, image: int, text: int, response: int, images: int = 1) -> list[tiny.Row]:
        """`count` prompts of `text` tokens and `images` images of `image` tokens each (0: none), and responses."""
        return [self._row([image] * images if image else [], text, response, seed) for seed in range(count)]

    def groups(self, prompts: int, responses: int, **sizes: int) -> list[tiny.Row]:
        """`responses` rows side by side for each of `prompts` prompts; `sizes` as above.

        Every row has image features of its own, equal to the others', as verl hands them to its workers.
        """
        first = self(prompts, **sizes)
        return [self._answered(row, seed) for row in first for seed in range(responses)]

    def _answered(self, row: tiny.Row, seed: int) -> tiny.Row:
        generator, prompt = torch.Generator().manual_seed(seed), row.input_ids[: -row.response_length]
        words = torch.randint(
            FIRST_WORD, self._config.text_config.vocab_size, (row.response_length,), generator=generator
        )
        inputs = {name: value.clone() for name, value in row.inputs.items()}
        return replace(row, input_ids=torch.cat([prompt, words]), inputs=inputs)

    def _row(self, images: Sequence[int], text: int, response: int, seed: int) -> tiny.Row:
        generator, config = torch.Generator().manual_seed(seed), self._config
        ids = []
        for tokens in images:
            ids += [config.vision_start_token_id, *[config.image_token_id] * tokens, config.vision_end_token_id]
        words = torch.randint(FIRST_WORD, config.text_config.vocab_size, (text + response,), generator=generator)
        input_ids = torch.cat([torch.tensor(ids, dtype=torch.long), words])
        inputs = {}
        if images:
            patches = PATCHES_PER_TOKEN * sum(images)
            inputs["pixel_values"] = torch.randn(patches, PATCH_COLUMNS, generator=generator)
            sides = [grid(tokens) for tokens in images]
            inputs["image_grid_thw"] = torch.tensor([[1, 2 * height, 2 * width] for height, width in sides])
        return tiny.Row(input_ids, tiny.positions(input_ids, inputs, self._model), response, inputs)


class Actors:
    """Builds actors on one model folder; those of one `group` share one copy of the model in memory.

    Sharing makes a difference of a few per cent between two of them no accident of where their weights lie.
    """

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[str] = (),
        micro_batch: int = 1,
        training_worker: Callable[[], type[TrainingWorker]] | None = None,
    ) -> None:
        device = [] if ON_CPU else GPU
        self._training_worker = training_worker or _sharing_a_model
        self._overrides = [f"actor_rollout_ref.model.path={folder}", *device, *overrides]
        self._micro_batch = micro_batch
        self._groups: dict[str, type[TrainingWorker]] = {}

    def build(self, group: str, *overrides: str, role: str = "actor") -> Any:
        """verl's own worker of the actor or "ref", or this package's if the overrides choose a perception method."""
        own = ActorRolloutRefWorker.actor_worker_cls, ActorRolloutRefWorker.ref_worker_cls
        sharing = self._groups.setdefault(group, self._training_worker())
        ActorRolloutRefWorker.actor_worker_cls = ActorRolloutRefWorker.ref_worker_cls = sharing
        try:
            return workers.build(*overrides, *self._overrides, role=role)
        finally:
            ActorRolloutRefWorker.actor_worker_cls, ActorRolloutRefWorker.ref_worker_cls = own

    def clean(self, worker: Any) -> Pass:
        """The old-log-prob pass as the trainer asks for it."""
        return lambda rows: worker.compute_log_prob(self._batch(rows, calculate_entropy=True))

    def ablated(self, worker: Any) -> Pass:
        """The pass over the ablated view."""
        return lambda rows: worker.compute_ablated_log_prob(self._batch(rows, calculate_entropy=False))

    def reference(self, worker: Any) -> Pass:
        """The pass of a "ref" worker."""
        return lambda rows: worker.compute_ref_log_prob(self._batch(rows, calculate_entropy=False))

    def update(self, worker: Any) -> Pass:
        """The update as the trainer asks for it, all rows as one mini-batch."""
        return lambda rows: worker.update_actor(self._to_learn_from(rows))

    def _batch(self, rows: list[tiny.Row], **settings: Any) -> Any:
        moment = {"perception_step": 1, "perception_progress": 0.0}
        size = min(self._micro_batch, len(rows))
        return batches.batch(rows, compute_loss=False, micro_batch_size_per_gpu=size, **moment, **settings)

    def _to_learn_from(self, rows: list[tiny.Row]) -> Any:
        batch = self._batch(
            rows,
            calculate_entropy=False,
            mini_batch_size=len(rows),
            global_batch_size=len(rows),
            perception_steps_done=0,
            perception_total_steps=10,
        )
        # What loss terms read, of no consequence to what an update costs.
        batch["ref_log_prob"] = batch["ablated_log_prob"] = batch["old_log_probs"]
        batch["has_image"] = torch.tensor([bool(row.inputs) for row in rows])
        return batch


def _sharing_a_model() -> type[TrainingWorker]:
    """A class of training workers whose engines all take over what the first one built."""
    built: dict[str, Any] = {}

    class Sharing(TrainingWorker):
        def reset(self) -> None:
            if built:
                vars(self.engine).update(built)
            else:
                super().reset()
                built.update(vars(self.engine))

    return Sharing


def response_only(chosen: bool) -> str:
    """The override that says whether logits are made of response tokens alone."""
    return f"perception.response_only_logits={chosen}"


def shared_prompts(chosen: bool | None) -> str:
    """The override that says whether responses share their prompt; None where the package thinks it pays."""
    return f"perception.share_prompts={'null' if chosen is None else chosen}"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=SHAPES, default="small" if ON_CPU else "3b", help="sizes of the model")
    parser.add_argument("--layers", type=int, help="layers of the text model and vision tower, to try it out")
    parser.add_argument("--micro-batch", type=int, default=1, help="rows that a pass takes at a time")
    parser.add_argument("overrides", nargs="*", help="further verl overrides, for every actor")
