# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a saved model on the test questions, with the image and without, and how far its tokens depend on it.

By transformers and on the same questions for every arm, so that the evaluation is the same whatever a run trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from qwen_vl_utils import process_vision_info
from torch import Tensor
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from study.task import KINDS, Row, read_rows
from verl_ext.data.easy_vqa import chat_messages
from verl_ext.rewards.boxed_answer import compute_score
from verl_ext.signals.divergence import sampled_k3

SAMPLES = 4
BATCH = 128
MOST_NEW_TOKENS = 48
SEED = 0
VIEWS = {"image": "test", "blind": "test_blind"}


@dataclass(frozen=True)
class Batch:
    """Some questions with and without their image, ready for the model; prompts are padded on the left."""

    rows: Sequence[Row]
    views: dict[str, Any]


@dataclass(frozen=True)
class Responses:
    """`SAMPLES` responses to each question of a batch: (B * SAMPLES, T) tokens, those after the end masked."""

    tokens: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Means over the questions.

    Attributes:
        accuracy: {view: {kind: share}} of responses sampled at temperature 1, "all" among the kinds.
        greedy: the same of one greedy response.
        format: share of the sampled responses with the image that have the form which the prompt asks for.
        visual_dependency: nats, k3 divergence of the view without image, mean over the tokens of a response, then over
            responses sampled with the image.
        response_tokens: mean length of those.
    """

    accuracy: dict[str, dict[str, float]]
    greedy: dict[str, dict[str, float]]
    format: float
    visual_dependency: float
    response_tokens: float


class Evaluator:
    """Holds the prepared questions; `evaluate` takes one model after another."""

    def __init__(self, task: Path, processor: Path) -> None:
        self._processor: Any = AutoProcessor.from_pretrained(processor)
        rows = {view: read_rows(task / f"{name}.parquet") for view, name in VIEWS.items()}
        count = len(rows["image"])
        self._batches = [
            Batch(
                rows["image"][start : start + BATCH],
                {view: self._encoded(found[start : start + BATCH]) for view, found in rows.items()},
            )
            for start in range(0, count, BATCH)
        ]

    @torch.no_grad()
    def evaluate(self, checkpoint: Path) -> dict[str, Any]:
        """The `Evaluation` of the model in `checkpoint`, as plain numbers; the same for the same weights."""
        model = _load(checkpoint)
        torch.manual_seed(SEED)
        sampled: dict[str, list[tuple[str, float]]] = {view: [] for view in VIEWS}
        greedy: dict[str, list[tuple[str, float]]] = {view: [] for view in VIEWS}
        formats, dependencies, lengths = [], [], []
        for batch in self._batches:
            for view in VIEWS:
                responses = self._generate(model, batch.views[view], SAMPLES)
                scores = self._scores(batch, responses)
                sampled[view] += [(kind, score["acc"]) for kind, score in scores]
                best = self._scores(batch, self._generate(model, batch.views[view], 1))
                greedy[view] += [(kind, score["acc"]) for kind, score in best]
                if view == "image":
                    formats += [score["format"] for _, score in scores]
                    lengths += responses.mask.sum(dim=1).tolist()
                    dependencies += self._dependency(model, batch, responses).tolist()
        return asdict(
            Evaluation(
                {view: _by_kind(found) for view, found in sampled.items()},
                {view: _by_kind(found) for view, found in greedy.items()},
                _mean(formats),
                _mean(dependencies),
                _mean(lengths),
            )
        )

    @torch.no_grad()
    def accuracy_with_image(self, checkpoint: Path) -> float:
        """Of responses sampled at temperature 1, over all questions."""
        model = _load(checkpoint)
        torch.manual_seed(SEED)
        scores = [
            score["acc"]
            for batch in self._batches
            for _, score in self._scores(batch, self._generate(model, batch.views["image"], SAMPLES))
        ]
        return _mean(scores)

    def _encoded(self, rows: Sequence[Row]) -> Any:
        messages = [chat_messages(row) for row in rows]
        texts = [self._processor.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in messages]
        images = process_vision_info(messages, image_patch_size=14)[0]
        return self._processor(
            text=texts, images=images, padding=True, return_tensors="pt", text_kwargs={"padding_side": "left"}
        )

    def _generate(self, model: Any, inputs: Any, samples: int) -> Responses:
        """Sampled at temperature 1; greedy when it is one."""
        how: dict[str, Any] = {"do_sample": False}
        if samples > 1:
            how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": samples}
        output = model.generate(**inputs, max_new_tokens=MOST_NEW_TOKENS, **how)
        tokens = output[:, inputs["input_ids"].shape[1] :]
        ends = torch.isin(tokens, torch.tensor(model.generation_config.eos_token_id))
        # The end itself is a token of the response; what comes after it is padding.
        return Responses(tokens, (ends.cumsum(dim=1) - ends.long()) == 0)

    def _scores(self, batch: Batch, responses: Responses) -> list[tuple[str, dict[str, float]]]:
        texts = self._processor.batch_decode(responses.tokens, skip_special_tokens=True)
        each = len(texts) // len(batch.rows)
        asked = [row for row in batch.rows for _ in range(each)]
        return [
            (
                row["extra_info"]["answer_type"],
                compute_score(row["data_source"], text, row["reward_model"]["ground_truth"]),
            )
            for row, text in zip(asked, texts, strict=True)
        ]

    def _dependency(self, model: Any, batch: Batch, responses: Responses) -> Tensor:
        """(B,) of the first response to each question."""
        tokens, mask = responses.tokens[::SAMPLES], responses.mask[::SAMPLES]
        clean, blind = (_log_prob(model, batch.views[view], tokens, mask) for view in VIEWS)
        return (sampled_k3(clean, blind) * mask).sum(dim=1) / mask.sum(dim=1)


def _load(checkpoint: Path) -> Any:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()


def _log_prob(model: Any, inputs: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    """(B, T) log-probabilities of `tokens` after the prompts of `inputs`."""
    extended = dict(inputs)
    extended["input_ids"] = torch.cat([inputs["input_ids"], tokens], dim=1)
    extended["attention_mask"] = torch.cat([inputs["attention_mask"], mask.long()], dim=1)
    if "mm_token_type_ids" in inputs:
        extended["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(tokens)], dim=1)
    logits = model(**extended).logits[:, -tokens.shape[1] - 1 : -1]
    return logits.log_softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)


def _by_kind(scores: Sequence[tuple[str, float]]) -> dict[str, float]:
    kinds = {kind: _mean([score for asked, score in scores if asked == kind]) for kind in KINDS}
    return {"all": _mean([score for _, score in scores]), **kinds}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
