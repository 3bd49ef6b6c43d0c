# SPDX-License-Identifier: Apache-2.0
"""The steps for GPU machines in docs/installing.md, and what is told of steps that cannot work."""

import dataclasses
import io
import subprocess
import sys
import tarfile
from importlib.metadata import version

import pytest
from support.tiny import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import check_gpu_install as check
from install_resolution import Package
from install_steps import Step, step_of, steps_of
from source_builds import Build, read_build

PAGE = check.PAGE.read_text()
FSDP = steps_of(PAGE, "FSDP and vLLM")
TORCH, TOOLS, FLASH_ATTN, REST = FSDP
EXTRAS = ("vllm", "fsdp")
# As of flash-attn: what its build imports, and what it requires afterwards.
BUILD = Build(frozenset({"setuptools"}), frozenset({"torch", "packaging"}), frozenset({"torch", "einops"}))
STEP = Step("pip install --no-build-isolation flash-attn==2.8.3", ("flash-attn==2.8.3",), isolated=False)
THERE = {name: Package("1") for name in ("torch", "packaging", "setuptools")}


def test_steps_of_the_page():
    assert (TORCH.requirements, REST.requirements) == (("torch==2.11.0",), (".[gpu]",))
    assert [step.isolated for step in FSDP] == [True, True, False, True]
    assert [step.dependencies for step in steps_of(PAGE, "Megatron")] == [True, True, False]


def test_pip_and_uv_take_the_same_steps():
    def without_command(steps):
        return [dataclasses.replace(step, command="") for step in steps]

    assert without_command(steps_of(PAGE, "The same with uv")) == without_command(FSDP)


def test_steps_are_read_across_lines_and_without_comments():
    page = '# A\n## One\n```bash\n# why\nMAX_JOBS=2 uv pip install \\\n    --no-deps "a[b]>=1" c # d\n```\n## Two\n'
    line = 'MAX_JOBS=2 uv pip install --no-deps "a[b]>=1" c # d'
    assert steps_of(page, "One") == [Step(line, ("a[b]>=1", "c"), dependencies=False)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pip install --upgrade torch", "'pip install --upgrade torch': nothing here knows what --upgrade does"),
        ("conda install torch", "'conda install torch' is neither `pip install` nor a command that installs nothing"),
    ],
)
def test_a_command_that_is_not_understood(line, message):
    with pytest.raises(ValueError, match=message):
        step_of(line)


@pytest.mark.parametrize("heading", ["Two", "Three"])
def test_a_section_without_steps(heading):
    with pytest.raises(ValueError, match=heading):
        steps_of("## One\n```bash\npip install a\n```\n## Two\n", heading)


def archive(**files):
    """A source distribution; underscores in names stand for dots."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as packed:
        for name, text in files.items():
            member = tarfile.TarInfo("a-1/" + name.replace("_", "."))
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def test_what_a_build_needs():
    metadata = "Name: a\nRequires-Dist: Torch>=2\nRequires-Dist: x; extra == 'y'\n\n"
    setup = "import os, helper\nfrom torch.utils import cpp_extension\n\ndef late():\n    import psutil\n"
    files = {"PKG-INFO": metadata, "setup_py": setup, "helper_py": ""}
    expected = Build(frozenset({"setuptools"}), frozenset({"torch", "psutil"}), frozenset({"torch"}))
    assert read_build(archive(**files)) == expected
    declared = read_build(archive(**files, pyproject_toml='[build-system]\nrequires = ["Ninja_x>1"]\n')).declared
    assert declared == {"ninja-x"}


def told(step=STEP, before=THERE, finally_there=THERE):
    return list(check.wrong_order(step, "flash-attn", BUILD, before, finally_there))


def test_an_order_that_works():
    assert told() == []


def test_a_build_without_what_it_imports():
    isolated = dataclasses.replace(STEP, isolated=True)
    assert [line.partition("where ")[2].partition(":")[0] for line in told(isolated)] == [
        "packaging cannot be imported",
        "torch cannot be imported",
    ]
    without = {name: package for name, package in THERE.items() if name != "torch"}
    assert told(before=without) == [
        f"`{STEP.command}` builds flash-attn from source, which needs torch: install it in a step before"
    ]


def test_a_build_for_a_torch_that_does_not_stay():
    assert told(finally_there={**THERE, "torch": Package("2")}) == [
        f"`{STEP.command}` builds flash-attn from source for torch 1, which a later step replaces with 2: install "
        "torch==2 before"
    ]


def test_versions_must_be_named_where_nothing_else_fits_them():
    loose = [dataclasses.replace(STEP, requirements=("flash-attn",)), Step("pip install b", ("b",))]
    assert list(check.unpinned(loose)) == [f"`{STEP.command}` names no version of flash-attn: write flash-attn==..."]
    assert list(check.unpinned(FSDP)) == []


def test_the_pins_are_verls():
    asked = {str(requirement).partition(";")[0].strip() for requirement in check.requirements_of_verl(EXTRAS)}
    assert set(TORCH.requirements + FLASH_ATTN.requirements) <= asked
    held = {
        check.canonicalize_name(requirement.name): Package(next(iter(requirement.specifier)).version)
        for requirement in check.requirements_of_verl(EXTRAS)
        if [part.operator for part in requirement.specifier] == ["=="]
    }
    other = {**held, "torch": Package("2.0"), "apex": Package("0.9"), "verl": Package("0.9.0")}
    lines = [line for line in check.other_than_verls(other, EXTRAS) if "no step installs" not in line]
    assert lines == [
        f"the steps bring verl 0.9.0 and its pins are read from verl {version('verl')}: write that version into the "
        "extra `gpu` of pyproject.toml, or install the other one",
        "the steps install apex from PyPI, where another package has that name: leave it out",
        *2 * [f"verl asks for torch=={held['torch'].version}, and the steps bring 2.0"],
    ]
    assert "verl asks for accelerate, which no step installs" in check.other_than_verls(held, EXTRAS)


def test_the_page_names_what_deviates():
    assert list(check.undocumented(PAGE)) == []
    assert len(list(check.undocumented("## Megatron\n"))) == 2


WRONG = {
    "the last step alone": ([REST], "builds flash-attn from source where torch cannot be imported"),
    "flash-attn before torch": ([FLASH_ATTN, TORCH, TOOLS, REST], "which needs torch: install it in a step before"),
    "no build tools": ([TORCH, FLASH_ATTN, REST], "which needs wheel: install it in a step before"),
    "in isolation": ([TORCH, TOOLS, dataclasses.replace(FLASH_ATTN, isolated=True), REST], "torch cannot be imported"),
    "another torch": ([Step("pip install torch", ("torch>2.11",)), *FSDP[1:]], "the steps do not resolve together"),
    "torch as it comes": ([Step("pip install torch", ("torch",)), *FSDP[1:]], "replaces with 2.11.0: install torch=="),
}


@pytest.mark.slow
def test_the_page_passes(capsys):
    assert check.main() == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "message"), WRONG.values(), ids=WRONG)
def test_steps_that_cannot_work_are_told(steps, message):
    lines = list(check.failures(steps, EXTRAS))
    assert any(message in line for line in lines), lines
    assert not any("\n" in line for line in lines)


@pytest.mark.slow
def test_a_page_with_two_steps_swapped_fails(tmp_path):
    lines = PAGE.splitlines()
    torch, flash_attn = lines.index(TORCH.command), lines.index(FLASH_ATTN.command)
    lines[torch], lines[flash_attn] = lines[flash_attn], lines[torch]
    (tmp_path / "page.md").write_text("\n".join(lines))
    done = subprocess.run([sys.executable, check.__file__, tmp_path / "page.md"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "The same with uv: 4 steps" in done.stdout
    assert sorted({line.partition(": `")[0] for line in done.stderr.splitlines()}) == [
        "FSDP and vLLM",
        "FSDP and vLLM + Megatron",
    ]
    assert done.stderr.splitlines()[-1].endswith(", which needs wheel: install it in a step before")
