# SPDX-License-Identifier: Apache-2.0
"""What is decided about an answer without reading formulas: numbers, units, choices, yes and no, words."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.rewards.equivalence import Kind, decided, kind_of
from verl_ext.rewards.length import overlong
from verl_ext.rewards.notation import LONGEST, balanced, plain
from verl_ext.rewards.options import Options
from verl_ext.rewards.quantity import quantity, same_quantity
from verl_ext.rewards.units import unit_of


def verdict(answer, truth, hint=None, **options):
    return decided(plain(answer), plain(truth), kind_of(plain(truth), hint), Options(**options))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r" $\text{red}$. ", "red"),
        (r"\(5\)", "5"),
        (r"\text{a} and \text{b}", r"\text{a} and \text{b}"),
        ("$a$ or $b$", "$a$ or $b$"),
        (r"\{1, 2\}", r"\{1, 2\}"),
        ("{{{{{{{5}}}}}}}", "{{5}}"),
        ("\N{MINUS SIGN}3", "-3"),
        ("", ""),
        ("$", "$"),
        ("1 1/2", r"1\frac{1}{2}"),
        ("x 11 1/2 y", r"x 11\frac{1}{2} y"),
        ("1.1 1/2", "1.1 1/2"),
    ],
)
def test_plain(text, expected):
    assert plain(text) == expected


def test_balanced_braces():
    assert [balanced(text) for text in ("", "a{b{}}{}", "{", "}{", "{}}")] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("truth", "kind"),
    [
        ("Yes", Kind.YES_NO),
        ("false", Kind.YES_NO),
        ("No solution", Kind.TEXT),
        ("B", Kind.CHOICE),
        ("(C)", Kind.CHOICE),
        ("D. 12 cm", Kind.CHOICE),
        ("(A) and more", Kind.CHOICE),
        ("x", Kind.EXPRESSION),
        ("A(1, 2)", Kind.EXPRESSION),
        ("12", Kind.NUMBER),
        ("-1,234.5", Kind.NUMBER),
        ("30 minutes", Kind.NUMBER),
        (r"60^{\circ}", Kind.NUMBER),
        (r"\$5", Kind.NUMBER),
        ("5m", Kind.NUMBER),
        ("5x", Kind.EXPRESSION),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", Kind.EXPRESSION),
        (r"\frac{1}{2}", Kind.EXPRESSION),
        (r"4 \sqrt { 2 } \text{ inches}", Kind.EXPRESSION),
        ("x=3 or x=-3", Kind.EXPRESSION),
        (r"2\sin x", Kind.EXPRESSION),
        ("red circle", Kind.TEXT),
        ("\N{CJK UNIFIED IDEOGRAPH-7EA2}", Kind.TEXT),
        (r"\angle ABC", Kind.TEXT),
    ],
)
def test_the_ground_truth_says_how_it_is_read(truth, kind):
    assert kind_of(truth) is kind


def test_a_hint_settles_what_the_ground_truth_leaves_open():
    assert kind_of("A") is kind_of("A", "choice") is kind_of("A", "shape") is Kind.CHOICE
    assert kind_of("A", "expression") is Kind.EXPRESSION
    assert kind_of("ab", "text") is Kind.TEXT
    assert kind_of("30 minutes", "text") is Kind.NUMBER
    assert kind_of("yes", "expression") is Kind.YES_NO


@pytest.mark.parametrize("hint", ["", "shape", "Choice", 3, float("nan"), ["text"], {}, np.array(["text", "number"])])
def test_an_unknown_hint_says_nothing(hint):
    for truth in ("A", "12", "yes", "ab", "red circle"):
        assert kind_of(truth, hint) is kind_of(truth)


@pytest.mark.parametrize(
    ("answer", "truth", "same"),
    [
        ("B", "B", True),
        ("b", "B", True),
        ("(B)", "B", True),
        ("B.", "B", True),
        ("B. 12 cm", "B", True),
        ("B) 12 cm", "B", True),
        ("(B) 12 cm", "B", True),
        (r"\text{(B)}", "B", True),
        ("Option B", "B", True),
        ("answer: (b)", "B", True),
        ("B. red and blue", "B", True),
        ("12 cm", "B. 12 cm", True),
        ("C. 12 cm", "B. 12 cm", False),
        ("C", "B", False),
        ("B or C", "B", False),
        ("(B) and (C)", "B", False),
        ("B, C", "B", False),
        ("B. 12, C. 13", "B", False),
        ("A) B) C) D)", "A", False),
        ("A. B. C. D", "A", False),
        ("A: B: C", "A", False),
        ("A.B.C.D", "A", False),
        ("(A) (B) (C)", "A", False),
        ("[A] [B]", "A", False),
        ("a) b) c) d)", "A", False),
        ("A. b c d", "A", False),
        ("A) B", "A", False),
        ("A) 12B) 13", "A", False),
        ("A. 12 cm B. 13 cm", "A", False),
        ("A. 12 cm B: 13 cm", "A. 12 cm", False),
        ("A. P(B)", "A", True),
        ("A. a + b", "A", True),
        ("A. f(x) = (x + y)", "A", True),
        ("A. Triangle ABC: the left one", "A", True),
        ("A circle", "A", False),
        ("Because", "B", False),
        ("", "B", False),
    ],
)
def test_choices(answer, truth, same):
    assert verdict(answer, truth) is same


@pytest.mark.parametrize(
    ("answer", "truth", "same"),
    [
        ("yes", "Yes", True),
        ("Yes.", "yes", True),
        (r"\text{Yes}", "yes", True),
        ("Yes, it is red", "yes", True),
        ("true", "yes", True),
        ("no", "yes", False),
        ("yes or no", "yes", False),
        ("it is yes", "yes", False),
        ("", "no", False),
        ("No", "no", True),
    ],
)
def test_yes_and_no(answer, truth, same):
    assert verdict(answer, truth) is same


@pytest.mark.parametrize(
    ("answer", "truth", "same"),
    [
        ("12", "12", True),
        ("12.0", "12", True),
        ("+12", "12", True),
        ("-12", "12", False),
        (".5", "0.5", True),
        ("1,234", "1234", True),
        ("1{,}234", "1234", True),
        ("1.2e3", "1200", True),
        (r"1.2 \times 10^{3}", "1200", True),
        ("1.6e-19", "9.1e-31", False),
        ("100000001", "100000000", False),
        ("3.1415927", "3.1415926", False),
        ("12 cm", "12", True),
        ("12", r"12 \text{ cm}", True),
        ("12 centimeters", "12 cm", True),
        ("12 m", "12 cm", False),
        ("12 cm^2", r"12 \text{ square centimeters}", True),
        ("12 cm^2", "12 cm", False),
        ("5 m/s", "5 meters per second", True),
        (r"60^\circ", "60", True),
        ("60 degrees", r"60^{\circ}", True),
        ("50%", "50", True),
        (r"50\%", "0.5", True),
        ("0.5", r"50\%", True),
        ("5", "50%", False),
        (r"\$12", "12 dollars", True),
        ("12 apples", "12", None),
        ("5m", "5", True),
        ("5m", "5s", False),
        (r"\frac{24}{2}", "12", None),
        ("1,2", "12", None),
        ("1e1000", "12", None),
        ("12.1.2", "12", None),
        ("", "12", None),
    ],
)
def test_numbers(answer, truth, same):
    assert verdict(answer, truth) is same


def test_tolerances_are_off_unless_asked_for():
    assert verdict("5.66", "5.657") is False
    assert verdict("5.66", "5.657", relative_tolerance=1e-3) is True
    assert verdict("5.66", "5.657", absolute_tolerance=0.003) is True
    assert verdict("5.66", "5.657", absolute_tolerance=0.002) is False
    assert verdict("104", "100", relative_tolerance=0.05) is True
    assert verdict("5.66 m", "5.657 cm", relative_tolerance=1e-3) is False


def test_words_are_compared_as_words():
    assert verdict("Red  Circle.", "red circle") is True
    assert verdict("circle red", "red circle") is False
    assert verdict("der", "red") is False


def test_formulas_are_left_to_the_library():
    assert verdict(r"\frac{2}{4}", r"\frac{1}{2}") is None
    assert verdict(r"\frac{1}{2}", r"\frac{1}{2}") is True
    assert verdict("X", "x") is None


def test_a_long_answer_is_only_compared_as_a_string():
    assert verdict("1" * (LONGEST + 1), "12") is False
    assert verdict("1" * LONGEST, "12") is False
    assert verdict("1+" * LONGEST, "x") is False
    assert verdict("1" * 10**6, "1" * 10**6) is True


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("", ""),
        ("cm", "cm"),
        (r"\text{ cm}^2", "cm2"),
        (r"\mathrm{~cm}^{3}", "cm3"),
        ("cubic feet", "ft3"),
        ("cm\N{SUPERSCRIPT TWO}", "cm2"),
        ("km/h", "km/h"),
        ("miles per hour", "mi/h"),
        ("square units", ""),
        ("apples", None),
        ("/", None),
        ("^2", None),
    ],
)
def test_units(text, unit):
    assert unit_of(text) == unit


numbers = st.fractions(max_denominator=10**6).map(lambda value: Fraction(round(value * 10**6), 10**6))


@given(numbers, st.sampled_from(["", " cm", "%", r"^\circ", r"\text{ km/h}"]))
def test_every_decimal_is_read_exactly(value, unit):
    scaled = int(abs(value) * 10**6)
    text = f"{'-' if value < 0 else ''}{scaled // 10**6}.{scaled % 10**6:06d}{unit}"
    read = quantity(text)
    assert read is not None
    assert read.value == value
    assert same_quantity(read, quantity(text.replace(unit, "") if unit else text))


@given(numbers, numbers, st.floats(0, 1), st.floats(0, 10))
def test_sameness_is_symmetric_and_grows_with_the_tolerances(one, other, relative, absolute):
    first, second = (quantity(f"{float(value):f}") for value in (one, other))
    same = same_quantity(first, second, relative, absolute)
    assert same == same_quantity(second, first, relative, absolute)
    assert same or not same_quantity(first, second)
    assert same_quantity(first, first)


@given(st.text(max_size=80), st.sampled_from(["12 cm", "B", "yes", "red circle", r"\pi", "50%"]))
def test_any_answer_gets_a_verdict(answer, truth):
    assert verdict(answer, truth) in (True, False, None)


def test_overlong_is_linear_in_the_buffer():
    assert [overlong(length, 100, 20) for length in (0, 80, 85, 90, 100, 200)] == [0.0, 0.0, 0.25, 0.5, 1.0, 1.0]
