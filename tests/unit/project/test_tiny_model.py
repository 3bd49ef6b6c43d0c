# SPDX-License-Identifier: Apache-2.0
"""The tiny Qwen2.5-VL under assets/: loads through the Auto classes, and answers as its card says."""

import importlib.util
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from verl_ext.data.easy_vqa import write_easy_vqa

ROOT = Path(__file__).parents[3]
ASSETS = ROOT / "assets" / "tiny-qwen2.5-vl"


@pytest.fixture(scope="module")
def script():
    """The script that made the model, for its encoding and scoring."""
    spec = importlib.util.spec_from_file_location("make_tiny_qwen2_5_vl", ROOT / "scripts" / "make_tiny_qwen2_5_vl.py")
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name while it executes
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(ASSETS)


@pytest.fixture(scope="module")
def model():
    return AutoModelForImageTextToText.from_pretrained(ASSETS, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("easy_vqa")
    write_easy_vqa(folder, val_size=64)
    return folder


def messages():
    parts = [{"type": "image"}, {"type": "text", "text": "what color is the shape?"}]
    return [{"role": "user", "content": parts}]


def test_directory_is_small():
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) <= 5_000_000


def test_auto_classes_and_special_tokens(model, processor):
    config, tokenizer = AutoConfig.from_pretrained(ASSETS), AutoTokenizer.from_pretrained(ASSETS)
    assert config.model_type == "qwen2_5_vl"
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert len(tokenizer) == config.text_config.vocab_size == 512
    for field in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        name = field.removesuffix("_token_id").replace("image", "image_pad").replace("video", "video_pad")
        assert tokenizer.convert_tokens_to_ids(f"<|{name}|>") == getattr(config, field)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_tokenizer_reads_back_any_text(processor):
    for text in ("<think> a red circle </think> \\boxed{red}", "Grüße, 世界 🙂\n\ttabs", "what color is the shape?"):
        assert processor.tokenizer.decode(processor.tokenizer(text)["input_ids"]) == text


def test_chat_template(processor):
    text = processor.apply_chat_template(messages(), add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what color is the shape?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    closed = processor.apply_chat_template(turns, tokenize=False)
    assert closed == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n"


@pytest.mark.parametrize("side", [56, 64, 84, 200])
def test_square_images_become_9_tokens(processor, side):
    text = processor.apply_chat_template(messages(), add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=[Image.new("RGB", (side, side))], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 6, 6]]
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 9


def test_forward_and_gradient(model, processor, script, data):
    rows = script.read_rows(data / "sft.parquet")[:8]
    inputs = script.encode(processor, rows, with_response=True)
    labels = script.response_labels(processor.tokenizer, inputs)
    output = model(**inputs, labels=labels)
    assert output.logits.shape == (*inputs["input_ids"].shape, 512)
    assert torch.isfinite(output.logits).all()
    (gradient,) = torch.autograd.grad(output.loss, [model.model.visual.patch_embed.proj.weight])
    assert gradient.abs().sum() > 0


def test_labels_are_the_response_and_its_end(processor, script, data):
    rows = script.read_rows(data / "sft.parquet")[:40]
    labels = script.response_labels(processor.tokenizer, script.encode(processor, rows, with_response=True))
    for row, line in zip(rows, labels, strict=True):
        assert processor.tokenizer.decode(line[line != -100]) == row["response"] + "<|im_end|>"


def test_rope_positions_agree_with_verl(model, processor):
    qwen2_vl = import_module("verl.models.transformers.qwen2_vl")
    text = processor.apply_chat_template(messages(), add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=[Image.new("RGB", (64, 64))], return_tensors="pt")
    grid, mask = inputs["image_grid_thw"], inputs["attention_mask"]
    ours = qwen2_vl.get_rope_index(processor, inputs["input_ids"][0], grid, attention_mask=mask[0])
    theirs, _ = model.model.get_rope_index(
        inputs["input_ids"], mm_token_type_ids=inputs["mm_token_type_ids"], image_grid_thw=grid, attention_mask=mask
    )
    assert torch.equal(ours, theirs[:, 0])


def test_greedy_answers_beat_chance_and_leave_room(model, processor, script, data):
    rows = script.read_rows(data / "test.parquet")
    scores = script.score(rows, script.generate(model, processor, rows, sample=False))
    assert 0.6 < scores.accuracy < 0.9
    assert scores.format > 0.97


def test_colours_are_read_from_the_image(model, processor, script, data):
    asked = [row for row in script.read_rows(data / "train.parquet") if row["extra_info"]["answer_type"] == "color"]
    rows = asked[:64]
    seen = script.score(rows, script.generate(model, processor, rows, sample=False))
    without = [
        {**row, "images": [], "prompt": [{"role": "user", "content": row["prompt"][0]["content"][len("<image>") :]}]}
        for row in rows
    ]
    blind = script.score(without, script.generate(model, processor, without, sample=False))
    assert blind.accuracy < 0.3
    assert seen.accuracy > blind.accuracy + 0.2
