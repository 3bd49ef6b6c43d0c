# SPDX-License-Identifier: Apache-2.0
"""The numbers that tokens can be coloured by, and the range that a colour scale gives each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from verl_ext.report.record_files import Response

_TITLES = {
    "visual_dependency": "visual dependency (nats)",
    "weight": "weight of the advantage",
    "advantage": "advantage",
}
_CENTRES = {"weight": 1.0, "advantage": 0.0}
TAIL = 1.0
"""Percentage of the values beyond each end of a range, which take the colour of that end."""


@dataclass(frozen=True)
class Quantity:
    """One number a token.

    Attributes:
        name: as in the records.
        title: for a reader, with the unit.
        centre: the value that is neither high nor low, for a diverging scale; None for a sequential one.
        low: lower end of the range of all responses.
        high: upper end of it, above `low`.
    """

    name: str
    title: str
    centre: float | None
    low: float
    high: float


def quantities(responses: Sequence[Response]) -> list[Quantity]:
    """The quantities of these responses: dependency, weight, advantage, then every signal by name."""
    names = {name for response in responses for name in response.values}
    known = [name for name in _TITLES if name in names]
    return [_quantity(name, responses) for name in (*known, *sorted(names - set(known)))]


def _quantity(name: str, responses: Iterable[Response]) -> Quantity:
    values = np.array([value for response in responses for value in response.values.get(name, [])], dtype=np.float64)
    centre = _CENTRES.get(name)
    low, high = value_range(values, centre)
    return Quantity(name, _TITLES.get(name, name), centre, low, high)


def value_range(values: np.ndarray, centre: float | None) -> tuple[float, float]:
    """The range of a colour scale: symmetric around a centre; from 0 where no value is negative; never empty.

    Args:
        values: (n,) numbers, of which those that are not finite are left out.
        centre: of a diverging scale, or None.
    """
    finite = values[np.isfinite(values)]
    if centre is not None:
        return _around(centre, finite)
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(end) for end in np.percentile(finite, [TAIL, 100 - TAIL]))
    low = min(low, 0.0) if finite.min() >= 0 else low
    return low, high if high > low else low + max(1.0, abs(low))


def _around(centre: float, values: np.ndarray) -> tuple[float, float]:
    reach = float(np.percentile(np.abs(values - centre), 100 - TAIL)) if values.size else 1.0
    # A reach that is lost beside the centre is none.
    reach = reach if centre - reach < centre < centre + reach else 1.0
    return centre - reach, centre + reach
