# SPDX-License-Identifier: Apache-2.0
"""Make a tiny Qwen2.5-VL for tests: the real architecture, warm-started on easy-VQA in a few CPU minutes.

The warm start stops on purpose while the model has the answer format and the wording shortcuts but
reads colours only in part, so that a short RL run has something to gain from looking at the image.

    verl-ext data easy-vqa --output-dir data/easy_vqa
    python scripts/make_tiny_qwen2_5_vl.py --data-dir data/easy_vqa --output-dir assets/tiny-qwen2.5-vl
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from qwen_vl_utils import process_vision_info
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.generation import GenerationConfig

from verl_ext.data.easy_vqa import chat_messages
from verl_ext.data.row_check import PLACEHOLDER
from verl_ext.rewards.boxed_answer import compute_score

Row = dict[str, Any]

VOCABULARY = 512
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ASSISTANT_HEADER = "<|im_start|>assistant\n"
PATCH, MERGE = 14, 2
IMAGE_SIDE = 84  # pixels: 3 x 3 merged patches, 9 image tokens
MAX_NEW_TOKENS = 48

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] in ('image', 'image_url') -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- else -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def read_rows(path: Path) -> list[Row]:
    """The rows of one easy-VQA parquet file."""
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def train_tokenizer(rows: Sequence[Row]) -> Qwen2Tokenizer:
    """A byte-level BPE with Qwen2's pre-tokenizer, fitted to prompts and responses of the rows."""
    texts = ("user\n" + row["prompt"][0]["content"].removeprefix(PLACEHOLDER) for row in rows)
    answers = ("assistant\n" + row["response"] for row in rows)
    fitted = Qwen2Tokenizer().train_new_from_iterator(
        (text for pair in zip(texts, answers, strict=True) for text in pair),
        vocab_size=VOCABULARY,
        new_special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    fitted.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    fitted.eos_token, fitted.pad_token = "<|im_end|>", "<|endoftext|>"
    fitted.chat_template = CHAT_TEMPLATE
    fitted.model_max_length = 2048
    # The questions use so few words that the merges run out early; reserved tokens fill the vocabulary,
    # so that every row of the embedding has a token and nothing downstream meets a padded vocabulary.
    fitted.add_tokens([f"<|reserved_{i}|>" for i in range(VOCABULARY - len(fitted))], special_tokens=True)
    return fitted


def make_processor(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLProcessor:
    """A processor that turns every image into 84 x 84 pixels (for a square one: 9 image tokens)."""
    area = IMAGE_SIDE**2
    geometry: dict[str, Any] = {
        "size": {"shortest_edge": area, "longest_edge": area},
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**geometry),
        video_processor=Qwen2VLVideoProcessor(**geometry),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained model of about 1.2 million parameters; call ``torch.manual_seed`` before."""
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("im_end", "endoftext")}
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": True,
        "bos_token_id": ids["endoftext"],
        "eos_token_id": ids["im_end"],
        "pad_token_id": ids["endoftext"],
        "initializer_range": 0.02,
    }
    vision = {
        "depth": 2,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_heads": 3,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "out_hidden_size": text["hidden_size"],
        "initializer_range": 0.02,
    }
    places = ("image_pad", "video_pad", "vision_start", "vision_end")
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    tokens: dict[str, Any] = {
        n: tokenizer.convert_tokens_to_ids(f"<|{p}|>") for n, p in zip(names, places, strict=True)
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **tokens)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=ids["endoftext"], eos_token_id=[ids["im_end"], ids["endoftext"]], pad_token_id=ids["endoftext"]
    )
    return model


def encode(processor: Qwen2_5_VLProcessor, rows: Sequence[Row], *, with_response: bool) -> Any:
    """Model inputs for the rows, (B, T); padded on the left for generation, on the right otherwise.

    Images take the way they take in verl: qwen-vl-utils rounds their size first, the processor
    resizes them again.
    """
    texts, images = [], []
    for row in rows:
        messages = chat_messages(row)
        prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        texts.append(prompt + (row["response"] + "<|im_end|>" if with_response else ""))
        if row["images"]:
            images += process_vision_info(messages, image_patch_size=PATCH)[0]
    side = "right" if with_response else "left"
    return processor(
        text=texts, images=images or None, padding=True, return_tensors="pt", text_kwargs={"padding_side": side}
    )


def response_labels(tokenizer: Qwen2Tokenizer, inputs: Any) -> torch.Tensor:
    """Labels (B, T): the token ids after each row's last assistant header, -100 elsewhere."""
    ids: torch.Tensor = inputs["input_ids"]
    start = torch.tensor(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    header = len(tokenizer(ASSISTANT_HEADER)["input_ids"])
    positions = torch.arange(ids.shape[1])
    begin = torch.where(ids == start, positions, -1).amax(dim=1) + header
    keep = (positions >= begin[:, None]) & inputs["attention_mask"].bool()
    return torch.where(keep, ids, -100)


def batches(rows: Sequence[Row], size: int, seed: int) -> Iterator[list[Row]]:
    """Endless batches; every pass over the rows is one shuffle of a generator seeded once."""
    generator = random.Random(seed)
    while True:
        order = generator.sample(range(len(rows)), len(rows))
        for begin in range(0, len(order) - size + 1, size):
            yield [rows[i] for i in order[begin : begin + size]]


def warm_start(
    model: Any,
    processor: Qwen2_5_VLProcessor,
    rows: Sequence[Row],
    args: argparse.Namespace,
    on_step: Callable[[int, float], None],
) -> list[float]:
    """Supervised training on the responses, ``args.steps`` steps; returns the loss of every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / args.warmup_steps))
    source = batches(rows, args.batch_size, args.seed)
    losses = []
    for step in range(1, args.steps + 1):
        model.train()
        inputs = encode(processor, next(source), with_response=True)
        loss = model(**inputs, labels=response_labels(processor.tokenizer, inputs)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        on_step(step, losses[-1])
    return losses


@torch.no_grad()
def generate(model: Any, processor: Any, rows: Sequence[Row], *, sample: bool, batch_size: int = 128) -> list[str]:
    """One response per row, decoded without special tokens; ``sample`` draws at temperature 1."""
    model.eval()
    texts: list[str] = []
    for begin in range(0, len(rows), batch_size):
        inputs = encode(processor, rows[begin : begin + batch_size], with_response=False)
        extra: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "temperature": 1.0} if sample else {}
        output = model.generate(**inputs, do_sample=sample, max_new_tokens=MAX_NEW_TOKENS, **extra)
        texts += processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


@dataclass(frozen=True)
class Scores:
    """Shares between 0 and 1; ``by_type`` holds the accuracy of each answer type."""

    accuracy: float
    by_type: dict[str, float]
    format: float


def score(rows: Sequence[Row], texts: Sequence[str]) -> Scores:
    """Score responses with the reward function."""
    results = [
        compute_score(row["data_source"], text, row["reward_model"]["ground_truth"])
        for row, text in zip(rows, texts, strict=True)
    ]
    correct: dict[str, list[float]] = {}
    for row, result in zip(rows, results, strict=True):
        correct.setdefault(row["extra_info"]["answer_type"], []).append(result["acc"])
    return Scores(
        accuracy=sum(r["acc"] for r in results) / len(results),
        by_type={name: sum(values) / len(values) for name, values in sorted(correct.items())},
        format=sum(r["format"] for r in results) / len(results),
    )


def accuracy_table(model: Any, processor: Any, data_dir: Path, seed: int) -> str:
    """Markdown table of greedy and sampled accuracy on the test subset, with and without images."""
    lines = [
        "| questions | decoding | accuracy | yes/no | colour | shape | format |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, file in (("with image", "test"), ("blind", "test_blind")):
        rows = read_rows(data_dir / f"{file}.parquet")
        for sample in (False, True):
            torch.manual_seed(seed)
            s = score(rows, generate(model, processor, rows, sample=sample))
            shares = (s.accuracy, s.by_type["yes_no"], s.by_type["color"], s.by_type["shape"], s.format)
            cells = (name, "sampled, T=1" if sample else "greedy", *(f"{share:.3f}" for share in shares))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


CARD = """\
---
license: mit
---
# Tiny Qwen2.5-VL, warm-started on easy-VQA

A test model, useless for anything else: the architecture of Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration`)
at {parameters:,} parameters, with a 512-token byte-level BPE of its own. No weights come from Qwen. Images become
84 x 84 pixels, which gives a square image 9 tokens.

Made by `scripts/make_tiny_qwen2_5_vl.py`: {steps} supervised steps of batch {batch} on `sft.parquet`
(`verl-ext data easy-vqa`), learning rate {lr:g}, seed {seed}, weights rounded to bfloat16. It answers in the form
`<think> a red circle </think> \\boxed{{red}}` (a guess when there is no image), and was stopped while it
reads colours only in part and answers yes/no questions from their wording.

Measured on the {count} questions of `test.parquet` and `test_blind.parquet` (32-bit forward of the saved weights).
The number of steps was chosen on these same questions, among checkpoints of a few runs, so the table describes the
starting point of a test and is no held-out result. With few colour and shape questions, differences of a few
hundredths mean nothing.

{table}

The images and questions of easy-VQA are under the MIT licence, and so are these weights.
"""


def parse_args() -> argparse.Namespace:
    """Command line options; the defaults make the checkpoint that the tests use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data/easy_vqa"))
    parser.add_argument("--output-dir", type=Path, default=Path("assets/tiny-qwen2.5-vl"))
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--warmup-steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eval-every", type=int, default=0, help="print the accuracy table every N steps; 0: never")
    return parser.parse_args()


def main() -> None:
    """Build, train, save, evaluate and describe the model."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    rows = read_rows(args.data_dir / "sft.parquet")
    processor = make_processor(train_tokenizer(rows))
    model: Any = make_model(processor.tokenizer)
    began = time.perf_counter()

    def report(step: int, loss: float) -> None:
        if step % 25 == 0 or step <= 5:
            print(f"step {step}: loss {loss:.6f}, {time.perf_counter() - began:.0f} s", flush=True)
        if args.eval_every and step % args.eval_every == 0:
            state = torch.get_rng_state()
            print(accuracy_table(model, processor, args.data_dir, args.seed), flush=True)
            torch.set_rng_state(state)

    warm_start(model, processor, rows, args, report)
    model.to(torch.bfloat16).save_pretrained(args.output_dir)
    processor.save_pretrained(args.output_dir)
    table = accuracy_table(model.float(), processor, args.data_dir, args.seed)
    print(table)
    card = CARD.format(
        parameters=model.num_parameters(),
        steps=args.steps,
        batch=args.batch_size,
        lr=args.learning_rate,
        seed=args.seed,
        count=pq.read_metadata(args.data_dir / "test.parquet").num_rows,
        table=table,
    )
    (args.output_dir / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
