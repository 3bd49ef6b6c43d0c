# SPDX-License-Identifier: Apache-2.0
"""The reward function as verl calls it: its mix, its options, and verl's own managers around it."""

import asyncio
from pathlib import Path
from sys import float_info

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
from verl.trainer.ppo.reward import get_custom_reward_fn

from verl_ext.errors import ConfigurationError, DataError
from verl_ext.rewards.math_answer import compute_score

TINY = Path(__file__).parents[3] / "assets/tiny-qwen2.5-vl"
KEYS = {"score", "acc", "format", "timeout", "overlong"}


def score(text, truth, answer_type=None, **options):
    extra_info = {} if answer_type is None else {"answer_type": answer_type}
    return compute_score("geometry3k", text, truth, extra_info, **options)


def test_score_is_the_papers_mix():
    good = r"<think> 1 + 1 </think> The answer is \boxed{2}."
    assert score(good, "2") == {"score": 1.0, "acc": 1.0, "format": 1.0, "timeout": 0.0, "overlong": 0.0}
    assert score(good, "3")["score"] == 0.1
    assert score(r"\boxed{2}", "2")["score"] == 0.9
    assert score(r"\boxed{2}", "2", format_weight=0.5)["score"] == 0.5
    assert score("2", "2")["score"] == 0.0


@pytest.mark.parametrize(
    ("data_source", "box", "truth", "extra_info"),
    [
        ("easy_vqa", "Red", "red", {"answer_type": "color"}),
        ("easy_vqa", "yes", "yes", {"answer_type": "yes_no"}),
        ("geometry3k", r"\sqrt{32}", r"4 \sqrt { 2 }", {"answer_type": "expression"}),
        ("geometry3k", "36.9", "36.9", {"answer_type": "number"}),
        ("virl39k", "(B)", r"\boxed{B}", {"answer_type": "choice"}),
        ("virl39k", r"\frac12", "$0.5$", None),
        ("mmk12", "12 cm", "12", {}),
        ("folder", "Because of the rain.", "because of the rain", {"answer_type": "text"}),
        ("folder", "7", 7, None),
    ],
)
def test_one_function_for_all_data_sets(data_source, box, truth, extra_info):
    assert compute_score(data_source, f"\\boxed{{{box}}}", truth, extra_info)["acc"] == 1.0


@pytest.mark.parametrize(
    ("box", "truth", "accuracy"),
    [
        ("4=3", "3", 0.0),
        ("2+2=3", "3", 0.0),
        ("4=5=3", "3", 0.0),
        ("x=4=3", "3", 0.0),
        ("0.3=0.2", "0.2", 0.0),
        (r"\frac{1}{0}=3", "3", 0.0),
        (r"\{4=3\}", "3", 0.0),
        ("2+1=3", "3", 1.0),
        (r"x=\frac{6}{2}=3", "3", 1.0),
        (r"25\pi=78.5", "78.5", 1.0),
        (r"\frac{1}{3}=0.33333333333333333333", r"\frac{1}{3}", 1.0),
        (r"\sin 30^\circ=0.5", "0.5", 1.0),
        ("x=3", "3", 1.0),
    ],
)
def test_an_equation_of_numbers_must_hold(box, truth, accuracy):
    assert score(f"\\boxed{{{box}}}", truth)["acc"] == accuracy


def test_the_largest_tolerance_takes_any_number():
    assert score(r"\boxed{12}", "-1e300", absolute_tolerance=float_info.max)["acc"] == 1.0


def test_no_verdict_counts_as_wrong_and_is_reported():
    result = score(r"<think> </think> \boxed{9^{9^{9^{9}}}}", r"\frac{1}{2}", seconds=0.2)
    assert result == {"score": 0.1, "acc": 0.0, "format": 1.0, "timeout": 1.0, "overlong": 0.0}


def test_overlong_responses_lose_what_is_asked_for():
    text = r"\boxed{2}".rjust(90)
    options = {"overlong_limit": 100, "overlong_buffer": 20}
    assert score(text, "2")["overlong"] == 0.0
    assert score(text, "2", **options)["overlong"] == 0.5
    assert score(text, "2", **options)["score"] == pytest.approx(0.9 - 0.5)
    assert score(text, "2", **options, overlong_factor=0.2)["score"] == pytest.approx(0.9 - 0.1)
    assert score("x" * 100, "2", **options)["score"] == -1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format_weight": 1.5}, r"reward_kwargs\.format_weight=1\.5: must lie between 0\.0 and 1\.0"),
        ({"format_weight": "0.1"}, r"reward_kwargs\.format_weight=0\.1: must lie between"),
        ({"seconds": 0}, r"reward_kwargs\.seconds=0: must lie between 0\.01 and 60"),
        ({"overlong_limit": 100}, r"reward_kwargs\.overlong_buffer=0: must lie between 1 and 100"),
        ({"absolute_tolerance": float("inf")}, r"absolute_tolerance=inf: must lie between 0\.0 and 1\.79"),
        ({"overlong_factor": float("inf")}, r"overlong_factor=inf: must lie"),
        ({"overlong_limit": float("inf")}, r"overlong_limit=inf: must lie"),
        ({"relative_tolerance": float("nan")}, r"relative_tolerance=nan: must lie"),
        ({"tolerance": 0.1}, r"reward_kwargs\.tolerance=0\.1: no such option"),
        ({"format_wieght": 0.1}, r"did you mean 'format_weight'\?"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ConfigurationError, match=message):
        score("", "2", **options)


@pytest.mark.parametrize("truth", [None, "", " $ $ ", "\\boxed{}", ["2"], {}])
def test_a_ground_truth_that_is_none_is_named(truth):
    with pytest.raises(DataError, match=r"geometry3k, row 7: ground_truth .* is no answer"):
        compute_score("geometry3k", r"\boxed{2}", truth, {"index": 7})


def configuration(**reward):
    return OmegaConf.create(
        {
            "reward": {
                "custom_reward_function": {
                    "path": "pkg://verl_ext.rewards.math_answer",
                    "name": "compute_score",
                    "reward_kwargs": {"format_weight": 0.2},
                },
                **reward,
            }
        }
    )


def responses(tokenizer, texts):
    """verl's batch of responses, padded on the right."""
    ids = [torch.tensor(tokenizer.encode(text)) for text in texts]
    width = max(map(len, ids))
    masks = [(torch.arange(1 + width) < 1 + len(row)).long() for row in ids]
    padded = [torch.nn.functional.pad(row, (0, width - len(row))) for row in ids]
    count = len(texts)
    return DataProto.from_single_dict(
        {
            "responses": torch.stack(padded),
            "attention_mask": torch.stack(masks),
            **{
                name: np.array([value] * count, dtype=object)
                for name, value in (
                    ("data_source", "geometry3k"),
                    ("reward_model", {"ground_truth": r"\frac{1}{2}"}),
                    ("extra_info", {"answer_type": "expression"}),
                )
            },
        }
    )


@pytest.mark.parametrize("manager", ["naive", "dapo"])
def test_verls_reward_managers_call_it(manager):
    config, tokenizer = configuration(), AutoTokenizer.from_pretrained(TINY)
    texts = [r"<think> a </think> \boxed{0.5}", r"\boxed{0.5}", r"<think> a </think> \boxed{7}", "a"]
    batch = responses(tokenizer, texts)

    async def scored():
        reward = get_reward_manager_cls(manager)(config, tokenizer, get_custom_reward_fn(config))
        reward.loop = asyncio.get_running_loop()
        return await asyncio.gather(*(reward.run_single(batch[row : row + 1]) for row in range(len(texts))))

    results = asyncio.run(scored())
    assert [result["reward_score"] for result in results] == pytest.approx([1.0, 0.8, 0.2, 0.0])
    assert all(set(result["reward_extra_info"]) == KEYS for result in results)
    assert [result["reward_extra_info"]["acc"] for result in results] == [1.0, 1.0, 0.0, 0.0]
