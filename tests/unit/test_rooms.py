# SPDX-License-Identifier: Apache-2.0
"""The rooms of the package: who may import whom, how long a file may be, and that each says what happens in it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import verl_ext

PACKAGE = Path(verl_ext.__file__).parent
EVERYWHERE = {"errors", "logs", "vocabulary"}
# A room may import those that its line names, and frameworks as far as `FRAMEWORKS` says. Lines point upwards only.
MAY_IMPORT = {
    "signals": set(),
    "ablation": set(),
    "methods": {"signals", "ablation"},
    "models": {"ablation"},
    "attention": set(),
    "passes": {"signals", "ablation", "models", "attention"},
    "rewards": set(),
    "data": {"rewards", "models"},
    "report": {"data"},
    "supervision": {"signals", "methods", "report"},
    "configuration": {"signals", "ablation", "methods", "models", "supervision", "attention"},
    "worker": {"methods", "models", "passes", "data", "supervision", "configuration"},
    "records": {"signals", "ablation", "methods", "passes", "report"},
    "rollout": {"data", "models"},
    "trainer": {"signals", "methods", "models", "passes", "supervision", "configuration", "worker", "records"},
    "platforms": set(),
    "doctor": {"signals", "models", "passes", "data", "configuration", "platforms"},
    "commands": {"data", "report", "configuration", "doctor"},
    "config": set(),
    "cli": set(),
    "plugin": set(),
}
FRAMEWORKS = {
    "signals": {"torch"},
    "ablation": {"torch"},
    "methods": {"torch"},
    "models": {"torch"},
    "attention": {"torch", "transformers"},
    "passes": {"torch", "tensordict", "verl", "megatron", "transfer_queue"},
    "supervision": {"torch", "verl", "ray", "transfer_queue"},
    "configuration": {"verl", "ray"},
    "worker": {"torch", "tensordict", "transformers", "verl"},
    "records": {"torch", "transfer_queue"},
    "rollout": {"torch", "verl", "ray"},
    "trainer": {"torch", "tensordict", "verl", "ray", "transfer_queue"},
    "platforms": {"torch", "verl", "ray", "vllm"},
    "doctor": {"verl"},
}
ALL_FRAMEWORKS = {"verl", "ray", "vllm", "torch", "tensordict", "transformers", "megatron", "transfer_queue"}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imported(path, *, for_types):
    """Modules that a file imports, at its top or in functions; those for type checkers only where asked for."""
    nodes = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not for_types:
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def room(name):
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_downwards(name):
    allowed = MAY_IMPORT.get(room(name), set()) | EVERYWHERE | {room(name)}
    ours = {room(other) for other in imported(MODULES[name], for_types=True) if other.startswith("verl_ext.")}
    assert ours <= allowed, f"{name} imports from {sorted(ours - allowed)}"


@pytest.mark.parametrize("name", MODULES)
def test_frameworks_stay_where_they_belong(name):
    tops = {other.split(".")[0] for other in imported(MODULES[name], for_types=False)}
    allowed = FRAMEWORKS.get(room(name), set())
    assert tops & ALL_FRAMEWORKS <= allowed, f"{name} imports {sorted((tops & ALL_FRAMEWORKS) - allowed)}"


def test_the_table_itself_has_no_circle_and_no_idle_line():
    order = list(TopologicalSorter(MAY_IMPORT).static_order())
    assert set(order) == {room(name) for name in MODULES} - EVERYWHERE - {""}
    used = {(room(name), room(other)) for name in MODULES for other in imported(MODULES[name], for_types=True)}
    unused = {(above, below) for above, rooms in MAY_IMPORT.items() for below in rooms} - used
    assert not unused
    used = {(room(name), other.split(".")[0]) for name in MODULES for other in imported(MODULES[name], for_types=False)}
    assert not {(above, top) for above, tops in FRAMEWORKS.items() for top in tops} - used


def test_no_files_import_each_other_in_a_circle():
    graph = {
        name: {other for other in imported(path, for_types=True) if other in MODULES and other != name}
        for name, path in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_needs_scrolling(path):
    lines = len(path.read_text().splitlines())
    own = path.parent.name == "methods" and "@register_method" in path.read_text()
    assert lines <= (150 if own else 200)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_room_says_what_happens_there(path):
    sentence = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    assert sentence.endswith((".", "?"))
