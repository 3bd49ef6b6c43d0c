# SPDX-License-Identifier: Apache-2.0
"""Tiny random models of every family, with their real processors, made once and without a download."""

import fcntl
import hashlib
import json
import tempfile
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, Qwen2Tokenizer

from support.tiny import MODEL

QWEN_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
GLM_TOKENS = {
    "image_token_id": "<|image|>",
    "video_token_id": "<|video|>",
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}
# The smallest that vLLM attends with on the CPU.
HEAD_DIM = 32
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
# Of no expert are two sides alike, so that a weight lies one way or the other.
EXPERTS = {"moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2}
GLM_EXPERTS = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "use_qk_norm": False,
}
HYBRID = {
    "head_dim": HEAD_DIM,
    "mamba_ssm_dtype": "float32",
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
VISION = {"num_heads": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
QWEN3_VISION = {
    **VISION,
    "depth": 3,
    "hidden_size": 48,
    "intermediate_size": 96,
    "patch_size": 16,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
}
GLM_VISION = {
    **VISION,
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "patch_size": 14,
    "image_size": 112,
    "out_hidden_size": 4 * HEAD_DIM,
}


def rope(sections, **more):
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections, **more}


@dataclass(frozen=True)
class Tiny:
    """What a tiny model is made of.

    `module` is transformers' and `classes` begins the names of its configuration and model; `processor` names the
    module and classes of processor, image and video processor.
    """

    module: str
    classes: str
    text: dict
    vision: dict
    processor: tuple
    patch: int = 14
    normalised: dict = field(default_factory=dict)
    tokens: dict = field(default_factory=lambda: QWEN_TOKENS)
    wrap: tuple = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
    frames: int = 1
    tied: bool = False
    more: dict = field(default_factory=dict)


QWEN2_PROCESSOR = ("Qwen2VLProcessor", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor")
QWEN3_PROCESSOR = ("Qwen3VLProcessor", "Qwen2VLImageProcessor", "Qwen3VLVideoProcessor")
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
QWEN3 = {"patch": 16, "normalised": HALF, "processor": QWEN3_PROCESSOR}
GLM = {
    "patch": 14,
    "tokens": GLM_TOKENS,
    "wrap": ("<|begin_of_image|>", "<|image|>", "<|end_of_image|>"),
    "processor": ("Glm4vProcessor", "Glm4vImageProcessor", "Glm4vVideoProcessor"),
    # Its image processor counts the pixels of both frames of a patch.
    "frames": 2,
}
DEEPSTACK = {**QWEN3_VISION, "deepstack_visual_indexes": [0, 1]}
QWEN3_TEXT = {**TEXT, "head_dim": HEAD_DIM, "rope_parameters": rope([8, 4, 4], mrope_interleaved=True)}
QWEN3_5_TEXT = {
    **TEXT,
    **HYBRID,
    # vLLM knows no other share than this one.
    "rope_parameters": rope([2, 1, 1], mrope_interleaved=True, partial_rotary_factor=0.25),
}
# Its heads share the hidden size, whatever their size is said to be.
GLM_TEXT = {
    **TEXT,
    "hidden_size": 4 * HEAD_DIM,
    "head_dim": HEAD_DIM,
    # transformers has biases without asking where vLLM asks.
    "attention_bias": True,
    "rope_parameters": rope([4, 2, 2], partial_rotary_factor=0.5),
}
TINY = {
    "qwen2_vl": Tiny(
        "qwen2_vl",
        "Qwen2VL",
        {**TEXT, "rope_parameters": rope([2, 3, 3])},
        {**VISION, "depth": 2, "embed_dim": 48, "hidden_size": 64, "patch_size": 14},
        QWEN2_PROCESSOR,
    ),
    "qwen2_5_vl": Tiny(
        "qwen2_5_vl",
        "Qwen2_5_VL",
        {**TEXT, "rope_parameters": rope([2, 3, 3])},
        {
            **VISION,
            "depth": 2,
            "hidden_size": 48,
            "intermediate_size": 96,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
        },
        ("Qwen2_5_VLProcessor", *QWEN2_PROCESSOR[1:]),
    ),
    "qwen3_vl": Tiny("qwen3_vl", "Qwen3VL", QWEN3_TEXT, DEEPSTACK, tied=True, **QWEN3),
    "qwen3_vl_moe": Tiny(
        "qwen3_vl_moe",
        "Qwen3VLMoe",
        # transformers always does the last, and vLLM asks.
        {**QWEN3_TEXT, **EXPERTS, "decoder_sparse_step": 1, "norm_topk_prob": True},
        DEEPSTACK,
        **QWEN3,
    ),
    "qwen3_5": Tiny("qwen3_5", "Qwen3_5", QWEN3_5_TEXT, QWEN3_VISION, **QWEN3),
    "qwen3_5_moe": Tiny(
        "qwen3_5_moe",
        "Qwen3_5Moe",
        {**QWEN3_5_TEXT, **EXPERTS, "shared_expert_intermediate_size": 32},
        QWEN3_VISION,
        **QWEN3,
    ),
    "glm4v": Tiny("glm4v", "Glm4v", GLM_TEXT, GLM_VISION, **GLM),
    "glm4v_moe": Tiny("glm4v_moe", "Glm4vMoe", {**GLM_TEXT, **GLM_EXPERTS}, GLM_VISION, **GLM),
    "glm46v": Tiny(
        "glm46v",
        "Glm46V",
        GLM_TEXT,
        GLM_VISION,
        **{**GLM, "processor": ("Glm46VProcessor", "Glm46VImageProcessor", "Glm46VVideoProcessor")},
    ),
}
REFUSED = {
    "internvl": {"text_config": {"model_type": "qwen2"}, "vision_config": {"patch_size": [14, 14]}},
    "gemma3": {"vision_config": {"patch_size": 14}},
    "gemma4": {
        "vision_config": {"patch_size": 16},
        "text_config": {"model_type": "gemma4_text", "final_logit_softcapping": 30.0},
    },
    "mllama": {"vision_config": {"patch_size": 14}},
    "qwen3_5_text": {},
    "qwen3": {},
    "llama": {},
    "llava_onevision": {"vision_config": {"patch_size": 14}},
}
"""`model_type` of models that are refused, with more of their configuration."""


@cache
def path(name):
    """The folder of a family's tiny model, made if it is not there."""
    made_by = hashlib.sha256(Path(__file__).read_bytes() + transformers.__version__.encode()).hexdigest()[:12]
    root = Path(tempfile.gettempdir()) / f"verl-ext-tiny-models-{made_by}"
    root.mkdir(exist_ok=True)
    folder = root / name
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            with torch.random.fork_rng():
                _make(name, folder)
            (folder / "made").touch()
    return folder


def refused_path(name, folder):
    """A folder with the configuration of a model that is refused, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": name, **REFUSED[name]}))
    return folder


def _make(name, folder):
    tiny = TINY[name]
    tokenizer = _tokenizer(tiny)
    module = import_module(f"transformers.models.{tiny.module}")
    ids = {key: tokenizer.convert_tokens_to_ids(token) for key, token in tiny.tokens.items()}
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**tiny.text, "vocab_size": len(tokenizer), **ends, "bos_token_id": tokenizer.pad_token_id}
    config = getattr(module, f"{tiny.classes}Config")(
        text_config=text, vision_config=tiny.vision, **ids, tie_word_embeddings=tiny.tied
    )
    config.text_config.tie_word_embeddings = tiny.tied
    torch.manual_seed(0)
    model = getattr(module, f"{tiny.classes}ForConditionalGeneration")(config)
    _randomise(model)
    model.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id], pad_token_id=ends["pad_token_id"])
    model.to(torch.float32).save_pretrained(folder)
    _processor(tiny, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _name_the_text_model(folder, f"{tiny.classes}ForCausalLM")
    if name == "qwen3_vl_moe":
        _lay_experts_as_released(folder)


def _tokenizer(tiny):
    tokenizer = Qwen2Tokenizer.from_pretrained(MODEL)
    vocabulary = tokenizer.get_vocab()
    new = [token for token in tiny.tokens.values() if token not in vocabulary]
    tokenizer.add_special_tokens({"extra_special_tokens": [*tokenizer.extra_special_tokens, *new]})
    tokenizer.chat_template = _chat_template("".join(tiny.wrap))
    return tokenizer


def _chat_template(image):
    """Qwen's chat format, with `image` where a picture stands."""
    parts = (
        "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
        "{%- for part in message['content'] -%}"
        "{%- if part['type'].startswith('image') -%}{{- '"
        + image
        + "' -}}{%- else -%}{{- part['text'] -}}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}"
    )
    return (
        "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\\n' -}}"
        + parts
        + "{{- '<|im_end|>\\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )


def _processor(tiny, tokenizer):
    side = 4 * tiny.patch
    pixels = {"shortest_edge": tiny.frames * side**2, "longest_edge": tiny.frames * (5 * side // 2) ** 2}
    shape = {"size": pixels, "patch_size": tiny.patch, "merge_size": 2, "temporal_patch_size": 2, **tiny.normalised}
    processor, images, videos = (_transformers(name) for name in tiny.processor)
    return processor(
        image_processor=images(**shape),
        video_processor=videos(**shape),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
    )


def _transformers(name):
    """A class of transformers, which does not export those of every family."""
    if hasattr(transformers, name):
        return getattr(transformers, name)
    family = next(module for module in ("glm46v", "glm4v") if name.lower().startswith(module))
    kind = "image_processing" if "Image" in name else "video_processing"
    return getattr(import_module(f"transformers.models.{family}.{kind}_{family}"), name)


@torch.no_grad()
def _randomise(model):
    """Weights of which every part of the model makes a difference; transformers' own are almost 0."""
    for name, weight in model.named_parameters():
        if weight.ndim >= 2:
            weight.normal_(0, 0.15 if "embed" in name or "lm_head" in name else weight.shape[-1] ** -0.5)
        elif "bias" in name or weight.abs().max() == 0:
            weight.normal_(0, 0.02)


def _name_the_text_model(folder, name):
    """vLLM looks for the class of the text model in its own configuration."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["text_config"].setdefault("architectures", [name])
    file.write_text(json.dumps(config, indent=2))


def _lay_experts_as_released(folder):
    """With input features first, as vLLM expects them; transformers reads both and writes the other."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    for name in weights:
        if ".experts." in name:
            weights[name] = weights[name].transpose(1, 2).contiguous()
    save_file(weights, file, metadata={"format": "pt"})
