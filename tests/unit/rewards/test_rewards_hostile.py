# SPDX-License-Identifier: Apache-2.0
"""Responses written to break the reward: each gets values between 0 and 1, in bounded time and without exception."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hostile import FORMULAS, WORDS, check


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
ENDLESS = {
    *("tower of powers", "large power", "factorials", "repeated factorial", "sum", "integral", "binomials"),
    *("large set", "union", "polynomial", "nested polynomial", "nested brackets", "long sum", "exponent"),
    *("many minus signs", "spaces"),
}
"""What may take more processor time than it is given; everything else must have a verdict."""


@pytest.mark.parametrize("name", NAMED)
def test_named_attacks(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    endless = name in ENDLESS
    formula = check(NAMED[name], r"\frac{1}{2}", seconds=0.1 if endless else 1.0)
    letter = check(NAMED[name], "B", seconds=0.1)
    assert formula["acc"] == letter["acc"] == 0.0
    assert formula["timeout"] <= endless
    assert letter["timeout"] == 0.0
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=100)
@given(st.text(max_size=60), st.sampled_from(WORDS + FORMULAS))
def test_any_text(text, truth):
    check(text, truth)
    check(f"\\boxed{{{text}}}", truth)
