# SPDX-License-Identifier: Apache-2.0
"""One placeholder an image for vLLM, as verl sends it for Qwen-VL."""

import asyncio

import pytest
from support import families
from verl.utils.tokenizer import hf_processor
from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens

from verl_ext.models.facts import sends_all_image_tokens
from verl_ext.rollout.image_prompts import one_token_an_image, without_runs


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ([1, 7, 7, 7, 2], [1, 7, 2]),
        ([7, 7], [7]),
        ([1, 7, 2, 7, 7], [1, 7, 2, 7]),
        ([1, 1, 2], [1, 1, 2]),
        ([7, 8, 8], [7, 8]),
        ([], []),
    ],
)
def test_runs_become_one_token(prompt, wanted):
    assert without_runs(prompt, {7, 8}) == wanted


def test_it_is_what_verl_does_for_qwen_vl():
    processor = hf_processor(str(families.path("qwen3_vl")))
    image = processor.image_token_id
    prompt = [50, image, image, image, 60, image, 70, 70]
    assert without_runs(prompt, {image}) == qwen2_5_vl_dedup_image_tokens(prompt, processor)


@pytest.mark.parametrize(
    ("family", "by_us"), [("qwen3_vl", False), ("qwen3_5", False), ("glm4v", True), ("glm46v", True)]
)
def test_who_does_it(family, by_us):
    processor = hf_processor(str(families.path(family)))
    prompt = [5, processor.image_token_id, processor.image_token_id]
    assert sends_all_image_tokens(processor) == by_us
    assert (qwen2_5_vl_dedup_image_tokens(prompt, processor) == prompt) == by_us


def test_the_client_gets_the_short_prompt():
    async def generate(request_id, *, prompt_ids, image_data):
        return request_id, prompt_ids, image_data

    short = one_token_an_image(generate, {7})
    assert asyncio.run(short("a", prompt_ids=[1, 7, 7], image_data=["picture"])) == ("a", [1, 7], ["picture"])
