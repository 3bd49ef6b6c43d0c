# SPDX-License-Identifier: Apache-2.0
"""Responses made of fragments that could break a reward, and what has to be true of the values of any response."""

import random

from verl_ext.rewards.math_answer import compute_score

SEED = 20250814
WORDS = ("B", "(C) 12 cm", "yes", "false", "red circle", "Blue")
FORMULAS = ("12", r"\frac{1}{2}", r"4 \sqrt { 2 }", "x^2+1", r"60^\circ", "[0, 1)", r"\{1, 2\}", "x=3")
TRUTHS = (*WORDS * 12, *FORMULAS)
"""Ground truths; mostly words, since each comparison of formulas takes about 5 ms."""
FRAGMENTS = (
    *(r"\boxed{", r"\boxed", "{", "}", "<think>", "</think>", " ", "\n", "$", "\\", "(", ")", "[", "]", ",", ".", ";"),
    *("0", "7", "12", "-1", "3.14", "1e9", "10**10", "9^9", "^", "_", "!", "%", "/", "*", "+", "-", "=", "<", "|"),
    *(r"\frac", r"\frac{1}{2}", r"\sqrt", r"\sqrt[3]{2}", r"\pi", r"\infty", r"\cup", r"\in", r"\int", r"^\circ"),
    *(r"\begin{matrix}", r"\end{matrix}", r"\left(", r"\right]", r"\text{", r"\mathrm{cm}", r"\sum_{i=1}^{9}", "!!"),
    *("x", "y", "sin", "log", "A", "(B)", "yes", "no", "or", "and", "red circle", " cm", "factorial(9)", "None", "nan"),
    *("__import__('os').system('x')", "lambda: 0", "{0.__class__}", "%s%n", "${jndi:x}", "'; DROP TABLE", "import os"),
    *("\x00", "\x1b[31m", "\ud800", "\u202e12\u202c", "\u0661", "\uff15", "\u00b2", "\u0430", "\U0001f600", "\u0301"),
)


def check(text, truth, **options):
    """The values of the response `text`, all of them between 0 and 1."""
    result = compute_score("hostile", text, truth, None, **options)
    assert result.keys() == {"score", "acc", "format", "timeout", "overlong"}
    assert all(type(value) is float and 0.0 <= value <= 1.0 for value in result.values()), (text, truth, result)
    return result


def responses(count):
    """Fragments joined at random, most of them inside a box, with the truth to compare each with."""
    chance = random.Random(SEED)
    for number in range(count):
        text = "".join(chance.choices(FRAGMENTS, k=chance.randint(1, 8)))
        response = f"<think></think> \\boxed{{{text}}}" if chance.random() < 0.8 else text
        yield response, TRUTHS[number % len(TRUTHS)]
