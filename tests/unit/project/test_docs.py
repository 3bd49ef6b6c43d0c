# SPDX-License-Identifier: Apache-2.0
"""The pages under `docs/` and the README against the code: commands, keys, defaults, recipes, links, names, metrics."""

import dataclasses
import re
import shlex
from functools import cache
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from support.configuration import configuration

from verl_ext.ablation.spec import AblationSpec
from verl_ext.configuration.section import parse
from verl_ext.configuration.validation import validate
from verl_ext.methods.available import available_methods
from verl_ext.methods.base import LossInputs, RolloutSignals
from verl_ext.methods.credit import combined, method_weights
from verl_ext.supervision.broken_numbers import BROKEN_LOSSES
from verl_ext.supervision.collapse import PREFIX, SIGNS
from verl_ext.trainer.metrics import masked_metrics, method_metrics, shared_metrics, signal_metrics, weight_metrics
from verl_ext.vocabulary import PROMPT_TOKENS, SAVED_TOKENS

ROOT = Path(__file__).parents[3]
ALGO = ROOT / "docs" / "algo"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*DOCS, ROOT / "README.md"]
METHOD_PAGES = sorted(set(ALGO.glob("*.md")) - {ALGO / "README.md"})
GROUPS = sorted(path.stem for path in (ROOT / "verl_ext/config/perception").glob("[!_]*.yaml"))
SECTIONS = [
    "The idea",
    "Formulas",
    "Use",
    "Configuration checklist",
    "Cost",
    "Paper, official code, ours",
    "Degenerate cases",
]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FOLDERS = "verl_ext|hydra_plugins|tests|scripts|docs|assets|study"
# Paths, and what every command has: one composition fewer a page.
LEFT_OUT = (
    "data.train_files=",
    "data.val_files=",
    "actor_rollout_ref.model.path=",
    "actor_rollout_ref.rollout.load_format=auto",
)


def name(value):
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def commands(text):
    """Overrides of every main_ppo command in the bash blocks of a page."""
    for language, block in FENCED.findall(text):
        if language != "bash":
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:3] == ["python", "-m", "verl.trainer.main_ppo"]:
                yield tuple(word for word in words[3:] if "..." not in word and not word.startswith(LEFT_OUT))


def code_spans(text):
    """What stands in backticks outside of blocks."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def found(pattern, text):
    """Matches of `pattern` in the code spans of a page."""
    return [match for span in code_spans(text) for match in re.findall(pattern, span)]


def tables(text):
    """The tables of a page, each as rows of cells without backticks, the header first."""
    for block in re.findall(r"(?:^\|.*\n)+", FENCED.sub("", text), re.MULTILINE):
        rows = [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in block.splitlines()]
        yield [rows[0], *rows[2:]]


def rows_of(text, first_column):
    """{header: cell} of each row of the tables whose first column is called so."""
    for header, *rows in tables(text):
        if header[0] == first_column:
            yield from (dict(zip(header, row, strict=True)) for row in rows)


@cache
def composed(*overrides):
    return configuration(*overrides)


def section(*overrides):
    """The `perception` section as plain values."""
    return OmegaConf.to_container(composed(*overrides).perception, resolve=True)


@cache
def groups_with(method):
    return tuple(group for group in GROUPS if method in section(f"+perception={group}")["methods"])


def has(values, keys):
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


COMMANDS = sorted({command for page in PAGES for command in commands(page.read_text())})


def test_the_pages_have_commands():
    assert all(list(commands(page.read_text())) for page in METHOD_PAGES)


@pytest.mark.parametrize("overrides", COMMANDS, ids=" ".join)
def test_every_command_composes_and_validates(overrides):
    config = composed(*overrides)
    if "perception" in config:
        validate(config)


def test_every_method_has_a_page_and_every_page_a_method():
    assert [page.stem for page in METHOD_PAGES] == sorted(available_methods())
    index = (ALGO / "README.md").read_text()
    assert all(f"]({page.name})" in index for page in METHOD_PAGES)


@pytest.mark.parametrize("page", METHOD_PAGES, ids=name)
def test_sections(page):
    text = page.read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert "Last updated: " in text
    assert "(https://arxiv.org/abs/" in text
    idea = text.split("## The idea\n")[1].split("\n## ")[0].strip()
    assert len(idea.splitlines()) <= 5


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_every_key_exists(page):
    for key in found(r"(?<![\w/.])perception(?:\.[\w<>]+)+", page.read_text()):
        owner, *rest = key.split(".")[1:]
        if "<" in key:
            continue
        if owner == "views" and rest:
            assert set(rest[1:]) <= {field.name for field in dataclasses.fields(AblationSpec)}, key
            continue
        owners = groups_with(owner) or groups_with(page.stem) or GROUPS
        for group in owners:
            assert has(section(f"+perception={group}"), [owner, *rest]), f"{key} in +perception={group}"


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_every_value_is_accepted(page):
    for key, value in found(r"(?<![\w/.])perception\.((?!methods|views)[\w.]+)=([^\s`]+)", page.read_text()):
        group = (groups_with(key.split(".")[0]) or groups_with(page.stem) or GROUPS)[0]
        changed = OmegaConf.create(section(f"+perception={group}"))
        OmegaConf.update(changed, key, yaml.safe_load(value))
        parse(changed)


@pytest.mark.parametrize("page", [*METHOD_PAGES, ALGO / "README.md"], ids=name)
def test_the_tables_say_the_defaults(page):
    group = next(commands(page.read_text()))[0]
    told = {row["key"]: row["default"] for row in rows_of(page.read_text(), "key")}
    values = {key: yaml.safe_load(default) for key, default in told.items() if key != "perception.methods"}
    assert values
    for key, value in values.items():
        assert value == OmegaConf.select(composed(group), key), key
    if page in METHOD_PAGES:
        own = {f"perception.{page.stem}.{field.name}" for field in dataclasses.fields(available_methods()[page.stem])}
        assert own <= set(values)


def recipe_cells(config):
    """Clip, dual clip, reference KL, averaging and group filter as the tables write them."""
    actor = config.actor_rollout_ref.actor
    return {
        "clip": f"{actor.clip_ratio_low} / {actor.clip_ratio_high}",
        "dual clip": str(actor.clip_ratio_c) if actor.clip_ratio_c < 1e6 else "none",
        "reference KL": str(actor.kl_loss_coef) if actor.use_kl_loss else "none",
        "averaging": actor.loss_agg_mode,
        "group filter": "yes" if config.algorithm.filter_groups.enable else "no",
    }


def recipe_file(recipe):
    return OmegaConf.load(ROOT / f"verl_ext/config/recipe/{recipe}.yaml")


@pytest.mark.parametrize("page", METHOD_PAGES, ids=name)
def test_the_groups_table(page):
    rows = list(rows_of(page.read_text(), "group"))
    assert sorted(row["group"] for row in rows) == sorted(groups_with(page.stem))
    for row in rows:
        config = composed(f"+perception={row['group']}")
        expected = recipe_cells(config)
        parameters = OmegaConf.to_container(config.perception[page.stem])
        for title, cell in row.items():
            if title in expected:
                assert cell == expected[title], (row["group"], title)
            elif title in parameters:
                assert float(cell) == parameters[title], (row["group"], title)
        assert recipe_cells(recipe_file(row["recipe"])) == expected


def test_the_recipes_table():
    rows = {row["recipe"]: row for row in rows_of((ALGO / "README.md").read_text(), "recipe")}
    assert sorted(rows) == sorted(path.stem for path in (ROOT / "verl_ext/config/recipe").glob("*.yaml"))
    for recipe, row in rows.items():
        expected = recipe_cells(recipe_file(recipe))
        assert {title: row[title] for title in expected} == expected, recipe


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_paths(page):
    text = page.read_text()
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", FENCED.sub("", text)):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)), f"{target}#{anchor}"
    for path in found(rf"^(?:{FOLDERS})/[\w./-]*$", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_names_of_the_package(page):
    for dotted in found(r"(?<![\w/.])verl_ext(?:\.\w+)+", page.read_text()):
        module, _, attribute = dotted.rpartition(".")
        assert hasattr(import_module(module), attribute), dotted


def measured(signals):
    """Two responses of three tokens, with every signal."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(2, 3, dtype=torch.bool)
    return RolloutSignals(
        response_mask=mask,
        has_image=torch.tensor([True, True]),
        group_ids=torch.tensor([0, 0]),
        old_log_prob=-torch.rand(2, 3, generator=generator),
        measured={signal: -torch.rand(2, 3, generator=generator) for signal in signals},
    )


def emitted(config):
    """Names of the metrics that a configuration logs."""
    perception = parse(config.perception)
    signals = measured(perception.signals)
    weights = method_weights(perception.methods, signals)
    names = {*signal_metrics(signals), *method_metrics(weights, signals.response_mask)}
    if weights:
        names |= set(weight_metrics(combined(weights), signals.response_mask))
    inputs = LossInputs(signals.old_log_prob, signals.response_mask, signals.has_image, signals.measured, 0, 10)
    for method in perception.methods:
        for term in method.loss_terms(inputs):
            stem = f"actor/perception/{method.name}/{term.name}"
            names |= {stem, f"{stem}_loss_coef"}
    return names


@cache
def metrics():
    chosen = {(f"+perception={group}",) for group in GROUPS} | set(COMMANDS)
    configs = [composed(*overrides) for overrides in chosen]
    names = set().union(*(emitted(config) for config in configs if "perception" in config))
    source = "".join(
        (ROOT / f"verl_ext/trainer/{name}.py").read_text()
        for name in ("perception_trainer", "signal_passes", "step_credit")
    )
    collapse = {f"{PREFIX}/{name}" for name in (*SIGNS, "signs")}
    shared = shared_metrics({f"actor/{name}": 1.0 for name in (SAVED_TOKENS, PROMPT_TOKENS)})
    names |= collapse | {*masked_metrics([]), *shared, f"actor/{BROKEN_LOSSES}"}
    return names | set(re.findall(r'"(perception/\w+)"', source))


def expanded(text):
    """Every name that one with {a,b} stands for."""
    parts = re.split(r"\{([^}]*)\}", text)
    options = [part.split(",") if odd % 2 else [part] for odd, part in enumerate(parts)]
    return ["".join(choice) for choice in product(*options)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_metric_is_logged(page):
    for text in found(r"(?<![\w/.])(?:actor/)?perception/[\w<>{},./]+", page.read_text()):
        for metric in expanded(text):
            pattern = "[^/]+".join(map(re.escape, re.split(r"<\w+>", metric)))
            assert any(re.fullmatch(pattern, known) for known in metrics()), metric


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_table_has_a_header(page):
    """A line that begins with a bar belongs to a table, whose second line is its rule."""
    for block in re.findall(r"(?:^\|.*\n)+", FENCED.sub("", page.read_text()), re.MULTILINE):
        assert re.fullmatch(r"\|[\s:|-]+\|", block.splitlines()[1]), block
