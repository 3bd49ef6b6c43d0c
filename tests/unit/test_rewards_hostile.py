# SPDX-License-Identifier: Apache-2.0
"""Responses written to break the reward: each gets values between 0 and 1, in bounded time and without exception."""

import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_ext.rewards.math_answer import compute_score

RESPONSES = 10_000
SEED = 20250814
WORDS = ("B", "(C) 12 cm", "yes", "false", "red circle", "Blue")
FORMULAS = ("12", r"\frac{1}{2}", r"4 \sqrt { 2 }", "x^2+1", r"60^\circ", "[0, 1)", r"\{1, 2\}", "x=3")
TRUTHS = (*WORDS, *WORDS, *WORDS, *WORDS, *FORMULAS)
FRAGMENTS = (
    *(r"\boxed{", r"\boxed", "{", "}", "<think>", "</think>", " ", "\n", "$", "\\", "(", ")", "[", "]", ",", ".", ";"),
    *("0", "7", "12", "-1", "3.14", "1e9", "10**10", "9^9", "^", "_", "!", "%", "/", "*", "+", "-", "=", "<", "|"),
    *(r"\frac", r"\frac{1}{2}", r"\sqrt", r"\sqrt[3]{2}", r"\pi", r"\infty", r"\cup", r"\in", r"\int", r"^\circ"),
    *(r"\begin{matrix}", r"\end{matrix}", r"\left(", r"\right]", r"\text{", r"\mathrm{cm}", r"\sum_{i=1}^{9}", "!!"),
    *("x", "y", "sin", "log", "A", "(B)", "yes", "no", "or", "and", "red circle", " cm", "factorial(9)", "None", "nan"),
    *("__import__('os').system('x')", "lambda: 0", "{0.__class__}", "%s%n", "${jndi:x}", "'; DROP TABLE", "import os"),
    *("\x00", "\x1b[31m", "\ud800", "\u202e12\u202c", "\u0661", "\uff15", "\u00b2", "\u0430", "\U0001f600", "\u0301"),
)


def boxed(text):
    """A response that is `text` in a box."""
    return f"\\boxed{{{text}}}"


NAMED = {
    "tower of powers": r"\boxed{9^{9^{9^{9}}}}",
    "python power": r"\boxed{10**10**10}",
    "large power": r"\boxed{2^{10^{10}}}",
    "factorial": r"\boxed{factorial(10**9)}",
    "factorials": r"\boxed{9999999999!}",
    "repeated factorial": r"\boxed{9!!!!!!!!!}",
    "sum": r"\boxed{\sum_{i=1}^{10^{12}} \frac{1}{i^{i}}}",
    "integral": r"\boxed{\int_0^1 x^{x^{x^x}} dx}",
    "binomials": r"\boxed{\binom{10^9}{10^8}}",
    "large set": boxed(rf"\{{{','.join(map(str, range(400)))}\}}"),
    "union": boxed(r" \cup ".join(f"({n},{n + 1})" for n in range(100))),
    "polynomial": r"\boxed{(x+y+z+w)^{500}}",
    "nested polynomial": r"\boxed{((((x+1)^{9}+1)^{9}+1)^{9}+1)^{9}}",
    "nested roots": boxed(r"\sqrt{" * 300 + "2" + "}" * 300),
    "nested fractions": boxed(r"\frac{1}{" * 200 + "2" + "}" * 200),
    "nested brackets": boxed("(" * 900 + "1" + ")" * 900),
    "nested braces": boxed("{" * 100_000 + "1" + "}" * 100_000),
    "closed too often": boxed("1" + "}" * 100_000),
    "unclosed box": r"\boxed{12",
    "unclosed boxes": r"\boxed{" * 100_000,
    "many boxes": r"\boxed{12}" * 50_000,
    "box in think": r"<think> \boxed{12} </think>",
    "a megabyte": boxed("1" * 1_000_000),
    "a megabyte of text": "a" * 1_000_000,
    "long sum": boxed("1+" * 900 + "1"),
    "digits": boxed("9" * 2000),
    "exponent": r"\boxed{1e999999999}",
    "decimals": boxed("0." + "3" * 1900),
    "many dollars": boxed("$" * 1999),
    "many minus signs": boxed("-" * 1999),
    "dollar pairs": boxed("$a$ or " * 280),
    "spaces": boxed("B" + " " * 1990 + "x"),
    "thousands": boxed("1" + ",000" * 490),
    "backslashes": boxed("\\" * 1998),
    "command without end": boxed("\\" + "a" * 1990),
    "import": r"\boxed{__import__('os').system('touch hacked')}",
    "class": r"\boxed{().__class__.__bases__[0].__subclasses__()}",
    "format string": r"\boxed{{0.__init__.__globals__} %s%s%n %(x)s}",
    "null bytes": "\\boxed{1\x002\x00}",
    "surrogates": "\\boxed{\ud800\udfff 12}",
    "right to left": "\\boxed{\u202e21\u202c}",
    "bells": "\\boxed{\x07\x1b[2J12}",
    "combining": boxed("1" + "\u0301" * 1900),
    "nothing": "",
    "empty box": r"\boxed{}",
    "contradiction": r"\boxed{1=2}",
    "division by zero": r"\boxed{\frac{1}{0}}",
    "undefined": r"\boxed{0^0+\infty-\infty}",
}


def check(text, truth, **options):
    result = compute_score("hostile", text, truth, None, **options)
    assert result.keys() == {"score", "acc", "format", "timeout", "overlong"}
    assert all(type(value) is float and 0.0 <= value <= 1.0 for value in result.values()), (text, truth, result)
    return result


@pytest.mark.parametrize("name", NAMED)
def test_named_attacks(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    for truth in (r"\frac{1}{2}", "B"):
        assert check(NAMED[name], truth, seconds=0.5)["acc"] == 0.0
    assert time.monotonic() - began < 30
    assert list(tmp_path.iterdir()) == []


def responses(count):
    """Fragments joined at random, most of them inside a box, with the truth to compare each with."""
    chance = random.Random(SEED)
    for number in range(count):
        text = "".join(chance.choices(FRAGMENTS, k=chance.randint(1, 8)))
        boxed = f"<think></think> \\boxed{{{text}}}" if chance.random() < 0.8 else text
        yield boxed, TRUTHS[number % len(TRUTHS)]


def test_ten_thousand_responses():
    tried, slowest = Counter(), 0.0
    for text, truth in responses(RESPONSES):
        began = time.monotonic()
        tried[check(text, truth, seconds=0.5)["timeout"]] += 1
        slowest = max(slowest, time.monotonic() - began)
    assert tried.total() == RESPONSES
    assert tried[1.0] < RESPONSES / 100
    assert slowest < 30


def test_the_same_responses_get_the_same_scores():
    sample = list(responses(300))
    first, second = ([check(text, truth) for text, truth in sample] for _ in range(2))
    assert first == second


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.sampled_from(TRUTHS))
def test_any_text(text, truth):
    check(text, truth)
    check(f"\\boxed{{{text}}}", truth)
