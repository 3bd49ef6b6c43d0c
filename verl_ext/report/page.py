# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML page that needs no network and runs no script but its own."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from verl_ext.report.page_data import Watch, blocks
from verl_ext.report.runs import Run

_ASSETS = files("verl_ext.report") / "assets"
_SCRIPTS = ("data.js", "colours.js", "curves.js", "metrics.js", "tokens.js", "responses.js", "page.js")


@dataclass(frozen=True)
class _Script:
    """A script of the page, and the hash by which the page's security policy knows it."""

    text: Markup
    hash: str


def write_page(runs: Sequence[Run], path: Path, watch: Watch = iter) -> None:
    """Write the page, whole or not at all.

    Args:
        runs: at least one, in the order of the report.
        path: of the page.
        watch: passes the responses on while they are packed, for a progress bar.

    Raises:
        DataError: a picture of a response cannot be decoded.
    """
    template = _environment().get_template("page.html.j2")
    partial = path.with_suffix(".partial")
    stream = template.stream(
        title=", ".join(run.label for run in runs),
        style=Markup(_asset("page.css")),
        scripts=_scripts(),
        blocks=blocks(runs, watch),
    )
    try:
        with partial.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(stream)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("verl_ext.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _scripts() -> list[_Script]:
    from plotly.offline import get_plotlyjs

    return [_script(text) for text in (get_plotlyjs(), *map(_asset, _SCRIPTS))]


def _script(text: str) -> _Script:
    # A browser reads every line end as one line feed before it hashes.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    digest = hashlib.sha256(text.encode()).digest()
    return _Script(Markup(text), f"sha256-{b64encode(digest).decode('ascii')}")


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
