# SPDX-License-Identifier: Apache-2.0
"""docs/models.md and the README's table say what the registry has and the tests have shown."""

import importlib.util
import json

import pytest
from support.tiny import ROOT

from verl_ext.models.available import available_families


@pytest.fixture(scope="module")
def writer():
    spec = importlib.util.spec_from_file_location("models_page", ROOT / "scripts/write_models_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(writer):
    return json.loads(writer.RESULTS.read_text())


def test_both_are_current(writer, results):
    assert writer.PAGE.read_text() == writer.page(results), "run scripts/write_models_page.py"
    assert writer.README.read_text() == writer.readme(results), "run scripts/write_models_page.py"


def test_every_family_has_a_row(writer):
    assert set(writer.ORDER) == set(available_families())


def test_nothing_that_failed_is_published(results):
    assert not [name for found in results.values() for name, outcome in found.items() if outcome == "failed"]


def test_results_are_read_from_the_tests_own_report(writer, tmp_path):
    report = tmp_path / "results.xml"
    cases = {
        "test_every_ablation[qwen3_vl-packed]": "",
        "test_it_trains[qwen3_vl]": '<failure message="x"/>',
        "test_every_ablation[qwen3_5-packed]": '<skipped message="x"/>',
        "test_something[else]": "",
    }
    body = "".join(f'<testcase name="{name}">{inner}</testcase>' for name, inner in cases.items())
    report.write_text(f"<testsuites><testsuite>{body}</testsuite></testsuites>")
    found = writer.read_results(report)
    assert found == {
        "qwen3_vl": {"test_every_ablation[packed]": "passed", "test_it_trains[]": "failed"},
        "qwen3_5": {"test_every_ablation[packed]": "skipped"},
    }
    cells = writer.cells(available_families()["qwen3_vl"], found["qwen3_vl"])
    assert cells["whole run"] == "**no**"
    assert cells["packed"] == "-"
    assert writer.measured(found["qwen3_5"])["`drop_vision`"] == "refused"
