# SPDX-License-Identifier: Apache-2.0
"""Writes what the papers' rule says of the cases in the table of docs/rewards.md, to be run after the table changed.

It needs MathRuler, which nothing else here does, so it runs in an environment of its own:
``pip install mathruler==0.1.0 sympy==1.14.0 pylatexenc==2.11 && python tests/golden/make_mathruler_verdicts.py``.
MathRuler evaluates text, so the cases must be harmless ones.
"""

import json
import re
from importlib.metadata import version
from pathlib import Path

from mathruler.grader import extract_boxed_content, grade_answer

PAGE = Path(__file__).parents[2] / "docs/rewards.md"
VERDICTS = Path(__file__).parent / "data/mathruler_verdicts.json"
ROW = re.compile(r"^\| `(.+)` \| `(.+)` \| (?:yes|no) \| (?:yes|no) \| (?:yes|no) \|$", re.MULTILINE)
PACKAGES = ("mathruler", "sympy", "pylatexenc")


def verdict(response: str, truth: str) -> bool:
    """EasyR1's accuracy (examples/reward_function/math.py): no spaces around three signs, then MathRuler."""
    tight = re.sub(r"\s*([<>/])\s*", r"\1", response)
    return bool(grade_answer(extract_boxed_content(tight), truth))


def main() -> None:
    cases = [[response, truth, verdict(response, truth)] for response, truth in ROW.findall(PAGE.read_text())]
    lines = ",\n".join(f"    {json.dumps(case, ensure_ascii=False)}" for case in cases)
    made_with = json.dumps({name: version(name) for name in PACKAGES})
    VERDICTS.write_text(f'{{\n  "made_with": {made_with},\n  "cases": [\n{lines}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
