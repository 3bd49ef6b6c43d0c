# SPDX-License-Identifier: Apache-2.0
"""Hooks of the documentation site: formulas as MathML, so that pages need no network, and links that leave `docs/`."""

from __future__ import annotations

import html
import os
import re
from typing import Any

from latex2mathml.converter import convert

LINK = re.compile(r"\[([^\]]+)\]\((\.\.?/[^)#\s]+)(#[^)\s]*)?\)")
FORMULA = re.compile(r'<(div|span) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', re.DOTALL)


def on_page_markdown(markdown: str, page: Any, config: Any, **kwargs: Any) -> str:
    """Write links to files outside of the site as text that names the file."""
    here = os.path.dirname(page.file.abs_src_path)

    def plain(link: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(here, link[2]))
        inside = os.path.relpath(target, config["docs_dir"])
        if not inside.startswith(".."):
            return link[0]
        path = os.path.relpath(target, os.path.dirname(config["config_file_path"]))
        return link[1] if path in link[1] else f"{link[1]} (`{path}`)"

    return LINK.sub(plain, markdown)


def on_page_content(content: str, **kwargs: Any) -> str:
    """Turn what arithmatex marks as a formula into MathML."""

    def formula(found: re.Match[str]) -> str:
        return convert(html.unescape(found[3]).strip(), display="block" if found[2] == "[" else "inline")

    return FORMULA.sub(formula, content)
