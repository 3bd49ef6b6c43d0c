# SPDX-License-Identifier: Apache-2.0
"""Prompt templates, the quoted ones and a user's own."""

import pytest

from verl_ext.data.prompts import TEMPLATES, load_prompt
from verl_ext.errors import DataError


def test_the_papers_wording():
    assert load_prompt("papo").render("<image>How long is AB? ") == (
        "<image>How long is AB?\n\n"
        "You first think through the reasoning process as an internal monologue, enclosed within <think> </think> "
        r"tags. Then, provide your final answer enclosed within \boxed{}."
    )
    assert load_prompt("easyr1").render("<image>How long is AB?") == (
        "<image>How long is AB? You FIRST think about the reasoning process as an internal monologue and then provide "
        "the final answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST "
        r"BE put in \boxed{}."
    )
    assert load_prompt("plain").render(" <image>How long is AB?\n") == "<image>How long is AB?"


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_question_is_text_and_no_template(name):
    question = "{{ 7 * 7 }} {% for %} \\boxed{x} & <b>"
    assert load_prompt(name).render(question).startswith(question)


def test_a_file(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("{% if '<image>' in content %}Look. {% endif %}{{ content | trim }}\n")
    prompt = load_prompt(str(path))
    assert prompt.render("<image>what?") == "Look. <image>what?"
    assert prompt.render("what?") == "what?"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ content.__class__.__mro__ }}", "unsafe"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "unsafe"),
        ("{{ question }}", "'question' is undefined"),
        ("{% include '/etc/hostname' %}{{ content }}", "no loader"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ range(10 ** 9) | list }}", "Range too big"),
        ("{{ content + 1 }}", "str"),
        ("{% if false %}{{ content }}{% endif %}", "empty prompt"),
    ],
)
def test_a_template_that_fails_is_named(tmp_path, text, reason):
    path = tmp_path / "mine.jinja"
    path.write_text(text)
    with pytest.raises(DataError, match=reason) as caught:
        load_prompt(str(path)).render("what?")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"a\n{{ content ", "line 2: "), (b"\xff", "cannot|codec"), (None, "No such file.*papo, easyr1, plain")],
    ids=["syntax", "encoding", "missing"],
)
def test_a_file_that_is_no_template_is_named(tmp_path, data, reason):
    path = tmp_path / "mine.jinja"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=reason) as caught:
        load_prompt(str(path))
    assert str(path) in str(caught.value)
