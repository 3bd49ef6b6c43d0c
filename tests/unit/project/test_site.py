# SPDX-License-Identifier: Apache-2.0
"""The documentation site builds without a warning, with every page, and needs no network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_in_the_menu(site):
    home = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").with_suffix(".html")
        path = path.with_name("index.html") if path.name == "README.html" else path
        assert (site / path).exists(), path
        assert str(path) in home, f"{path} is not in the menu of mkdocs.yml"


def test_formulas_are_mathml(site):
    page = (site / "algo" / "pgpo.html").read_text()
    source = (ROOT / "docs" / "algo" / "pgpo.md").read_text()
    assert page.count('display="block"') == source.count("$$") // 2
    assert "arithmatex" not in page
    assert "\\frac" not in page


def test_nothing_is_fetched(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|img|iframe|link)[^>]*(?:src|href)="?(https?://[^" >]+)', page.read_text())
        assert fetched == [], page


def test_links_out_of_the_site_name_the_file(site):
    text = (site / "adding_a_method.html").read_text()
    assert 'href="../verl_ext' not in text
    assert "verl_ext/methods/tor.py" in text
