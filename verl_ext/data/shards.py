# SPDX-License-Identifier: Apache-2.0
"""Tables in parts, such as `train-00003-of-00010.parquet`: are all of them there?"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from verl_ext.errors import DataError

NAMED_PARTS = 5
"""Missing parts that an error names; further ones are only counted."""

_PART = re.compile(r"(?P<begin>.*-)(?P<number>\d{5})-of-(?P<total>\d{5})(?P<end>\.\w+)", re.ASCII)


def check_complete(files: Iterable[Path]) -> None:
    """Refuse tables of which parts are missing; files that are not named as parts are complete.

    Raises:
        DataError: parts are missing; the message names the first of them.
    """
    found: defaultdict[tuple[Path, str, str, str], set[int]] = defaultdict(set)
    for file in files:
        if part := _PART.fullmatch(file.name):
            found[file.parent, part["begin"], part["total"], part["end"]].add(int(part["number"]))
    for (folder, begin, total, end), numbers in found.items():
        missing = [f"{begin}{number:05}-of-{total}{end}" for number in range(int(total)) if number not in numbers]
        if missing:
            raise DataError(f"{folder}: {_listed(missing)} of {int(total)} parts are missing; download them as well")


def _listed(names: list[str]) -> str:
    further = f" and {len(names) - NAMED_PARTS} more" if len(names) > NAMED_PARTS else ""
    return ", ".join(names[:NAMED_PARTS]) + further
