# SPDX-License-Identifier: Apache-2.0
r"""Write docs/models.md and the table in README.md, from the registry of families and the results of their tests.

    python -m pytest -n2 --junitxml=results.xml tests/regression/test_model_families.py \
        tests/e2e/test_model_families.py tests/e2e/test_main_ppo.py
    python scripts/write_models_page.py results.xml

The results are kept in docs/models.json; without an argument the page is written from those.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from verl_ext.ablation.spec import KINDS
from verl_ext.models.available import available_families
from verl_ext.models.families.refused import REFUSED
from verl_ext.models.family import MEGATRON, Family

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "models.json"
BEGIN, END = "<!-- families -->", "<!-- end of families -->"
ORDER = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "glm4v",
    "glm4v_moe",
    "glm46v",
)
CLEAN = "test_the_clean_pass_and_its_signals"
SIGNALS = ("similarity, all layers (PEPO)", "similarity, last layer (VGPO)", "KL", "JSD", "entropy of top-p")
# Column: the tests whose parameters, behind the family's name, begin so; all must have passed.
PASSES = {
    "padded": (CLEAN, "padded"),
    "packed": (CLEAN, "packed"),
    "two ranks, images on one": ("test_images_on_one_of_two_ranks", "p"),
    "LoRA": ("test_a_trained_adapter", ""),
    "Ulysses": ("test_images_on_one_of_two_ranks", "split sequences"),
    "whole run": ("test_it_trains", ""),
}
OF_THE_COMMITTED_MODEL = {"test_pgpo_trains": "test_it_trains[qwen2_5_vl]"}
"""Tests of the tiny Qwen2.5-VL in assets/ that show what another shows of the other families."""
SHORT = ("padded", "packed", "LoRA", "Ulysses", "Megatron", "whole run")
HEAD = """# Models

Which vision-language models perception methods run on, and what was tested on each. Before Ray starts, a model's
`config.json` is read: a `model_type` that is not in the first table is refused with the reason, unless
`perception.unverified_model=True` insists. A model that has yet to be fetched is looked at first thing in the worker.

This page is written by `scripts/write_models_page.py` from the registry (`verl_ext/models/families`) and the results of
`tests/regression/test_model_families.py` and `tests/e2e/test_model_families.py`.

## What was tested

On a tiny random model of each family, on a CPU, in float32: every pass over rows with the image first, last, directly
before the response, two side by side, three of them, between the words of a system prompt, and none at all, against
transformers' own model run on one row at a time. "yes" is within 1e-5, absolute or relative (hybrids of linear and full
attention 1e-4; entropies of top-p, which jump where a token enters the nucleus, ten times that), "refused" stops before
Ray, "needs fla" was refused here for want of flash-linear-attention, "-" was not run. **No row says anything about
speed or memory, and none ran on a GPU.**

"""
NOTES = """
- *padded*, *packed*: `actor_rollout_ref.model.use_remove_padding` False and True, with log-probabilities, entropies and
  all signals below, and with logits of all tokens as well as of responses alone.
- *two ranks*: FSDP2 with images on one rank only, in the passes (within 2e-5 of one rank's) and in the update
  (gradients within 1e-5 of the largest).
- *LoRA*: a trained adapter, against transformers with the adapter's product added to its weights.
- *Ulysses*: packed sequences split over two ranks, as closely as two ranks. verl joins the parts in flash-attention;
  the CPU platform does it in transformers' "sdpa".
- Engines: the passes ran on FSDP2. Of FSDP1 the repairs of GLM's tower ran, in one process; it takes the same hooks.
- *Megatron*: verl's engine for it as a whole needs a GPU; "parts" were tested on Megatron-Core's own model on a CPU.
- *whole run*: two steps of `main_ppo` with PGPO and vLLM, rollout and actor correlating above 0.999 in each (Qwen3.5
  above 0.997, its MoE above 0.95: vLLM on a CPU runs them in bfloat16 only).

## Ablations and signals

"""
MIDDLE = """
Taking vision tokens away (`drop_vision`) equals masking all attention to them where every layer is attention. Two
things to know:

- **Qwen3.5** is a hybrid: a layer of linear attention carries a state that a mask does not reach. There `drop_vision`
  is the shorter sequence, exactly, and not the paper's masked attention.
- **Directly behind an image** the first token of a response is predicted from the image's last placeholder. Without the
  image it is predicted from what stands before the image. A prompt that is image tokens alone is refused, by row.

PEPO's similarity reads the output of each layer. Qwen3-VL adds image features to the first layers' outputs again
(deepstack); the similarity is of the states before that, as transformers reports them.

## What differs

"""
REFUSED_HEAD = """
## Refused, and why

| `model_type` | reason |
| --- | --- |
"""
TAIL = """| without `vision_config` | text-only: without images there is nothing to take away |
| any other | never verified |

Also refused: a `data.image_patch_size` that is not the model's (leave it null, as the groups do: verl's default of 14
counts other image tokens than the rollout for Qwen3-VL), packed Qwen3.5 without flash-linear-attention (states leak
from one sequence into the next while rollout and actor still agree), Ulysses where nothing joins the parts of a
sequence, fused kernels where verl's forward for them leaves the images out, and LoRA on GLM-4.5V's router. What counts
is the `model_type`, whatever a checkpoint is called.

## A family of your own

A model that has the parts of one above under other names is a family in a dozen lines, in a package of yours:

```python
from verl_ext.models.family import Family, Tower
from verl_ext.models.registry import register_family

register_family(Family(model_type="my_vl", name="My-VL", tower=Tower(name="vision"), patch_size=16))
```

announced by an entry point, whose module is loaded in every process:

```toml
[project.entry-points."verl_ext.model_families"]
my_vl = "my_package.my_vl"
```

What each attribute means is said in [`family.py`](../verl_ext/models/family.py). Its image processor must write patch
rows as Qwen-VL's does (`image_mean`, `image_std`, `merge_size`, `temporal_patch_size`), and verl must have a processor
for it.
"""


def read_results(file: Path) -> dict[str, dict[str, str]]:
    """{family: {test with its other parameters: "passed", "skipped" or "failed"}} of a junit file."""
    found: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(file).iter("testcase"):
        name = OF_THE_COMMITTED_MODEL.get(case.attrib["name"], case.attrib["name"])
        match = re.fullmatch(r"(\w+)\[(\w+?)(?:-(.*))?\]", name)
        if match and match[2] in ORDER:
            outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
            outcome = {"failure": "failed", "error": "failed"}.get(outcome, outcome)
            found.setdefault(match[2], {})[f"{match[1]}[{match[3] or ''}]"] = outcome
    return {family: dict(sorted(found[family].items())) for family in ORDER if family in found}


def outcome(results: dict[str, str], test: str, parameters: str) -> str:
    """What a cell says of all tests of that name whose parameters begin so."""
    found = {result for name, result in results.items() if name.startswith(f"{test}[{parameters}")}
    if not found:
        return "-"
    return "**no**" if "failed" in found else "refused" if found == {"skipped"} else "yes"


def cells(family: Family, results: dict[str, str]) -> dict[str, str]:
    """One row of the first table."""
    row = {column: outcome(results, *tests) for column, tests in PASSES.items()}
    if family.packing_needs:
        row = {column: f"needs {family.packing_needs}" if cell == "refused" else cell for column, cell in row.items()}
    return {**row, "Megatron": "parts" if MEGATRON in family.engines else "refused"}


def measured(results: dict[str, str]) -> dict[str, str]:
    """One row of the second table."""
    ablations = {f"`{kind}`": outcome(results, "test_every_ablation", "") for kind in KINDS}
    return {**ablations, **{signal: outcome(results, CLEAN, "") for signal in SIGNALS}}


def differences(family: Family) -> dict[str, str]:
    """One row of the third table."""
    return {
        "patch": f"{family.patch_size} px",
        "positions": f"{family.position_rows} rows (mRoPE)" if family.position_rows > 1 else "1-D",
        "deepstack": _yes(family.deepstack),
        "linear attention": _yes(family.hybrid),
        "fused kernels": _yes(family.fused_kernels),
        "LoRA on": ", ".join(family.adapter_targets) or "all linear layers",
        "engines": ", ".join(family.engines),
        "to know": family.remark or "-",
    }


def table(rows: dict[str, dict[str, str]]) -> Iterator[str]:
    """Markdown of rows by family."""
    columns = list(next(iter(rows.values())))
    yield f"| family | {' | '.join(columns)} |"
    yield f"| --- |{' --- |' * len(columns)}"
    for name, row in rows.items():
        yield f"| {name} | {' | '.join(row[column] for column in columns)} |"


def page(results: dict[str, dict[str, str]]) -> str:
    """docs/models.md."""
    families = [available_families()[model_type] for model_type in ORDER]
    names = [f"{family.name} (`{family.model_type}`)" for family in families]
    found_of = [results.get(family.model_type, {}) for family in families]
    known = list(zip(names, families, found_of, strict=True))
    parts = [
        HEAD,
        "\n".join(table({name: cells(family, found) for name, family, found in known})),
        "\n",
        NOTES,
        "\n".join(table({name: measured(found) for name, _, found in known})),
        "\n",
        MIDDLE,
        "\n".join(table({name: differences(family) for name, family, _ in known})),
        "\n",
        REFUSED_HEAD,
        "".join(f"| `{model_type}` | {reason} |\n" for model_type, reason in REFUSED.items()),
        TAIL,
    ]
    return "".join(parts)


def readme(results: dict[str, dict[str, str]]) -> str:
    """README.md with its short table anew."""
    rows = {}
    for model_type in ORDER:
        family = available_families()[model_type]
        row = cells(family, results.get(model_type, {}))
        rows[family.name] = {column: row[column] for column in SHORT}
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n" + "\n".join(table(rows)) + f"\n{END}{after}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> None:
    """Take in new results if there are any, and write both."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for file in sys.argv[1:]:
        for family, found in read_results(Path(file)).items():
            kept[family] = dict(sorted({**kept.get(family, {}), **found}.items()))
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(kept))
    README.write_text(readme(kept))


if __name__ == "__main__":
    main()
