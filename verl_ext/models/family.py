# SPDX-License-Identifier: Apache-2.0
"""What is known of a model family: the model itself is only asked for numbers."""

from __future__ import annotations

from dataclasses import dataclass

FSDP = ("fsdp", "fsdp2")
MEGATRON = "megatron"

QWEN_IMAGE_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")


@dataclass(frozen=True)
class Tower:
    """The vision tower.

    Attributes:
        name: last part of its name in the model.
        returns_features: whether verl reads its result as one tensor of features instead of as transformers' structure.
        position_table: name in the tower of an embedding whose weight is read without calling it, which fails where
            FSDP has sharded that; None if there is none.
        runs_on_dummy: whether verl runs it on a dummy image in micro-batches without any, so that ranks stay in step.
    """

    name: str = "visual"
    returns_features: bool = False
    position_table: str | None = None
    runs_on_dummy: bool = True


@dataclass(frozen=True)
class Family:
    """One family; the defaults are Qwen2.5-VL's.

    Attributes:
        model_type: as in the model's `config.json`.
        name: for people.
        engines: of verl's, those that train it, by the name of their strategy.
        tower: the vision tower.
        decoder: last part of the name of the text decoder, which has `layers` and a final `norm`.
        head: last part of the name of the layer that makes logits.
        logit_cap: key of the text configuration whose value, if any, caps logits: `cap * tanh(logits / cap)`.
        image_token: key of the configuration with the id of the placeholders that image features replace.
        video_token: the same of video features.
        image_tokens: tokens that stand for images or frame them, which must not be typed in a question.
        patch_size: side of a vision patch in pixels, where `vision_config` of the configuration does not say.
        position_rows: rows of rotary positions; 1 where positions just count.
        deepstack: whether features of the tower are also added behind the first layers of the decoder.
        hybrid: whether some layers are linear attention, which a mask cannot keep from seeing a token.
        packing_needs: module without which packed sequences leak into each other; None where they never do.
        sends_one_image_token: whether verl gives vLLM one image token an image; else vLLM would count images twice.
        counts_flops: whether verl's estimate of FLOPs works for it; else it ends the first update.
        fused_kernels: whether verl's fused kernels have a forward for it; else they leave its images out.
        guessed: whether this is no registered family, but what a model was taken for that the user insists on.
        splits_sequences: whether verl cuts its packed sequences over ranks (Ulysses sequence parallelism).
        own_attention: whether verl replaces its attention where it does so; else flash-attention alone joins the parts.
        layers_get_rotary_positions: whether transformers gives its layers those and not the text positions.
        adapter_targets: modules that LoRA must be limited to; empty where it may be put on all linear layers.
        remark: what else a user should know, a sentence; empty if nothing.
    """

    model_type: str
    name: str
    engines: tuple[str, ...] = FSDP
    tower: Tower = Tower()
    decoder: str = "language_model"
    head: str = "lm_head"
    logit_cap: str = "final_logit_softcapping"
    image_token: str = "image_token_id"
    video_token: str = "video_token_id"
    image_tokens: tuple[str, ...] = QWEN_IMAGE_TOKENS
    patch_size: int = 14
    position_rows: int = 3
    deepstack: bool = False
    hybrid: bool = False
    packing_needs: str | None = None
    sends_one_image_token: bool = True
    counts_flops: bool = True
    fused_kernels: bool = False
    guessed: bool = False
    splits_sequences: bool = True
    own_attention: bool = False
    layers_get_rotary_positions: bool = False
    adapter_targets: tuple[str, ...] = ()
    remark: str = ""

    @property
    def shares_prompts(self) -> bool:
        """Whether a response may branch off behind its prompt in every layer; of a guessed family nobody looked."""
        return not (self.hybrid or self.guessed)
