# SPDX-License-Identifier: Apache-2.0
"""Is verl's API the one that this package uses?"""

from __future__ import annotations

from collections.abc import Iterator

from verl_ext.configuration.contract import complaints, symbols
from verl_ext.doctor.checks import Check, failure, ok
from verl_ext.doctor.subject import Subject
from verl_ext.doctor.versions import allowed


def api_checks(_subject: Subject) -> Iterator[Check]:
    """One failure a symbol that changed, or one line that says that none did."""
    known = symbols()
    found = complaints(known)
    for complaint in found:
        yield failure(
            "verl's API", complaint, f'pip install "verl{allowed()["verl"]}", or a verl-ext that knows this verl'
        )
    if not found:
        yield ok("verl's API", f"the {len(known)} names that verl-ext uses are as it knows them")
