# SPDX-License-Identifier: Apache-2.0
"""GLM-4.1V, GLM-4.5V and GLM-4.6V, whose tower needs repairs before verl can train it.

verl reads GLM-4.1V's features as a tensor, shards the table of positions that the tower reads without calling it, and
leaves the other two to transformers, which runs no tower where a micro-batch has no image. It sends vLLM all image
tokens of an image, which vLLM then multiplies, and estimates FLOPs by numbers that transformers 5 keeps elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

from verl_ext.models.family import Family, Tower
from verl_ext.models.registry import register_family

TABLE = "embeddings.position_embedding"
GLM_4_1V = Family(
    model_type="glm4v",
    name="GLM-4.1V",
    tower=Tower(returns_features=True, position_table=TABLE),
    image_tokens=(
        "<|image|>",
        "<|video|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    ),
    sends_one_image_token=False,
    counts_flops=False,
    fused_kernels=True,
    own_attention=True,
    remark="its vision tower is repaired at hooks, without which verl 0.9 cannot train it",
)
BY_TRANSFORMERS = replace(
    GLM_4_1V,
    tower=Tower(position_table=TABLE, runs_on_dummy=False),
    fused_kernels=False,
    splits_sequences=False,
    own_attention=False,
)

register_family(GLM_4_1V)
register_family(
    replace(
        BY_TRANSFORMERS,
        model_type="glm4v_moe",
        name="GLM-4.5V",
        layers_get_rotary_positions=True,
        # On all linear layers peft also wraps the router, whose bias transformers then looks for in vain.
        adapter_targets=("q_proj", "k_proj", "v_proj", "o_proj"),
    )
)
register_family(replace(BY_TRANSFORMERS, model_type="glm46v", name="GLM-4.6V"))
