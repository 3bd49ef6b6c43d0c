# SPDX-License-Identifier: Apache-2.0
"""Kinds of answers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ext.data.answers import ANSWER_TYPES, answer_type, unboxed
from verl_ext.rewards.boxed import last_boxed


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("yes", "yes_no"),
        (" No ", "yes_no"),
        ("12", "number"),
        ("-3.5", "number"),
        ("$1,250$", "number"),
        (".5", "number"),
        ("40%", "number"),
        ("B", "choice"),
        ("(C)", "choice"),
        ("D. 12 cm", "choice"),
        (r"3\sqrt{2}", "expression"),
        (r"$\frac{1}{2}$", "expression"),
        ("x=4", "expression"),
        ("5 cm", "expression"),
        ("1:2", "expression"),
        ("x", "expression"),
        ("30 minutes", "text"),
        ("Rectangles", "text"),
        ("A circle", "text"),
        ("yes, it is", "text"),
        ("", "text"),
        ("\uff11\uff12", "text"),
    ],
)
def test_kinds(answer, kind):
    assert answer_type(answer) == kind


@pytest.mark.parametrize(
    ("answer", "inside"),
    [
        (r"\boxed{7}", "7"),
        (r"\boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2}", r"\boxed{1} and \boxed{2}"),
        (r"\boxed{7", r"\boxed{7"),
        (r"= \boxed{7}", r"= \boxed{7}"),
        ("7", "7"),
    ],
)
def test_an_answer_that_is_all_box_is_taken_out_of_it(answer, inside):
    assert unboxed(answer) == inside


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "x", " "]), max_size=8).map("".join))
def test_what_is_taken_out_of_a_box_is_the_last_box_and_all_there_is(answer):
    inside = unboxed(answer)
    assert inside == answer or (inside == last_boxed(answer).strip() and answer[7:-1].strip() == inside)


@given(st.text())
def test_any_text_has_one_kind(text):
    assert answer_type(text) in ANSWER_TYPES
    assert unboxed(text) in (text, text[7:-1].strip())


@pytest.mark.parametrize("bait", ["1" * 10**6 + "x", "1,111" * 10**5, "{" * 10**6, r"\boxed{" + "}{" * 10**5 + "}"])
def test_a_megabyte_takes_no_time(bait):
    start = time.perf_counter()
    answer_type(bait)
    unboxed(bait)
    assert time.perf_counter() - start < 2
