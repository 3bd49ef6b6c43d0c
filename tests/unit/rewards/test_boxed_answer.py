# SPDX-License-Identifier: Apache-2.0
"""The boxed-answer reward: exact cases, hostile strings, and linear time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.errors import ConfigurationError
from verl_ext.rewards.boxed import has_format, last_boxed
from verl_ext.rewards.boxed_answer import compute_score

FRAGMENTS = ("\\boxed{", "\\boxed", "{", "}", "<think>", "</think>", "red", " ", "\n", "\\", "\x00", "é")
hostile = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join) | st.text(max_size=60)
plain = st.text(st.characters(exclude_characters="{}<>\\"), max_size=20)


def score(text, truth="red", **kwargs):
    return compute_score("easy_vqa", text, truth, **kwargs)


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        (r"\boxed{red}", "red"),
        (r"\boxed{a} then \boxed{b}", "b"),
        (r"\boxed{a} then \boxed{b", "a"),
        (r"\boxed{a \boxed{b}", "b"),
        (r"\boxed{a \boxed{b} c}", r"a \boxed{b} c"),
        (r"\boxed{{x}{y}}", "{x}{y}"),
        (r"{ \boxed{red}", "red"),
        (r"}} \boxed{red} }}", "red"),
        (r"\boxed{}", ""),
        (r"\boxed {red}", None),
        (r"boxed{red}", None),
        (r"\boxed{{red}", None),
        ("", None),
        ("{", None),
        ("}", None),
    ],
)
def test_last_boxed(text, boxed):
    assert last_boxed(text) == boxed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"<think> a red circle </think> \boxed{red}", True),
        ("\n<think></think>The answer is \\boxed{red}.\n", True),
        (r"<think> a </think> \boxed{red} \boxed{red}", False),
        (r"<think> \boxed{red} </think>", False),
        (r"<think> <think> </think> \boxed{red}", False),
        (r"<think> </think> </think> \boxed{red}", False),
        (r"well <think> </think> \boxed{red}", False),
        (r"</think> <think> \boxed{red}", False),
        (r"<think> </think> \boxed{red", False),
        (r"<think> { </think> \boxed{red}", True),
        (r"<think> </think> red", False),
        (r"\boxed{red}", False),
    ],
)
def test_has_format(text, expected):
    assert has_format(text) is expected


def test_score_is_the_weighted_mean():
    good = r"<think> a </think> \boxed{red}"
    assert score(good) == {"score": 1.0, "acc": 1.0, "format": 1.0}
    assert score(good, "blue") == {"score": 0.1, "acc": 0.0, "format": 1.0}
    assert score(r"\boxed{red}") == {"score": 0.9, "acc": 1.0, "format": 0.0}
    assert score(r"\boxed{red}", format_weight=0.25)["score"] == 0.75
    assert score("red")["score"] == 0.0


def test_match_ignores_case_and_surrounding_whitespace_only():
    assert score("\\boxed{ \n RED\t}")["acc"] == 1.0
    assert score(r"\boxed{r ed}")["acc"] == 0.0
    assert score(r"\boxed{red.}")["acc"] == 0.0
    assert score(r"\boxed{7}", 7)["acc"] == 1.0


def test_verl_keywords_are_accepted():
    assert score(r"\boxed{red}", extra_info={"index": 3}, reward_router_address=None)["acc"] == 1.0


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_bad_weight_is_named(weight):
    with pytest.raises(ConfigurationError, match=r"format_weight=.*: must lie between 0 and 1"):
        score("", format_weight=weight)


@given(hostile, st.floats(0, 1))
def test_any_text_scores_between_0_and_1(text, weight):
    result = score(text, format_weight=weight)
    assert set(result) == {"score", "acc", "format"}
    assert result["acc"] in (0.0, 1.0)
    assert result["format"] in (0.0, 1.0)
    assert 0.0 <= result["score"] <= 1.0 + 1e-12


@given(hostile)
def test_boxed_content_is_balanced_and_in_the_text(text):
    boxed = last_boxed(text)
    if boxed is not None:
        assert f"\\boxed{{{boxed}}}" in text
        assert boxed.count("{") == boxed.count("}")


@given(hostile)
def test_format_implies_a_box(text):
    if has_format(text):
        assert last_boxed(text) is not None


@given(plain, plain, plain)
def test_well_formed_responses_score_1(thought, between, answer):
    result = score(f"<think>{thought}</think>{between}\\boxed{{{answer}}}", answer)
    assert result == {"score": 1.0, "acc": 1.0, "format": 1.0}


@given(hostile, plain)
def test_a_box_at_the_end_counts_after_any_text_without_braces(text, answer):
    prefix = text.replace("{", "").replace("}", "")
    assert score(f"{prefix} \\boxed{{{answer}}}", answer)["acc"] == 1.0


@pytest.mark.parametrize("unit", ["\\boxed{", "{", "}", "<think>", "\\boxed{}", "\\boxed", "\\boxed{{"])
def test_hostile_repetition_takes_linear_time(unit):
    def seconds(count):
        text = unit * count + "}" * count
        began = time.process_time()
        score(text)
        return time.process_time() - began

    # A quadratic reading of 400,000 units would take hours, a linear one well below a second.
    assert seconds(400_000) < 10
