# SPDX-License-Identifier: Apache-2.0
r"""Prompt templates: what is asked of the model beside the question.

A template is Jinja with the question as ``content``, as in EasyR1's ``data.format_prompt``, so that the papers' own
files can be given. The wording is a parameter of an experiment like the learning rate, hence quoted to the letter:

* ``papo``: ``examples/format_prompt/math_perception.jinja`` of the code of PAPO (arXiv 2507.06448);
* ``easyr1``: the instruction of EasyR1's ``math.jinja`` and of verl's ``examples/data_preprocess/geo3k.py``;
* ``plain``: the question alone.
"""

from dataclasses import dataclass
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from verl_ext.errors import DataError

TEMPLATES = {
    "papo": "{{ content | trim }}\n\nYou first think through the reasoning process as an internal monologue, enclosed "
    "within <think> </think> tags. Then, provide your final answer enclosed within \\boxed{}.",
    "easyr1": "{{ content | trim }} You FIRST think about the reasoning process as an internal monologue and then "
    "provide the final answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final answer "
    "MUST BE put in \\boxed{}.",
    "plain": "{{ content | trim }}",
}


@dataclass(frozen=True)
class Prompt:
    """A template that is ready to use: its name or path, its source, and the compiled form."""

    name: str
    source: str
    template: jinja2.Template

    def render(self, question: str) -> str:
        """The prompt of a question; `DataError` when the template fails on it or gives nothing."""
        try:
            text = self.template.render(content=question)
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise DataError(f"template {self.name} fails: {error}") from error
        if not text.strip():
            raise DataError(f"template {self.name} gives an empty prompt; it must use {{{{ content }}}}")
        return text


def load_prompt(name: str) -> Prompt:
    """The template of that name in `TEMPLATES`, or in the file of that path.

    A file's template runs in Jinja's sandbox: it can neither reach attributes of Python objects nor include files.

    Raises:
        DataError: there is neither, or the file is no UTF-8 text or no template.
    """
    source = TEMPLATES.get(name)
    if source is None:
        source = _read(name)
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    try:
        return Prompt(name, source, environment.from_string(source))
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"template {name}: line {error.lineno}: {error.message}") from error


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        known = ", ".join(TEMPLATES)
        raise DataError(f"template {path}: {reason}; write {known} or the path of a template file") from error
