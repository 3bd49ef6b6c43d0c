# SPDX-License-Identifier: Apache-2.0
"""Colours of the report, on the page and in the figures.

The scales change monotonically in lightness, and blue against orange is told apart under the common kinds of colour
blindness. The categorical colours are those of M. Okabe and K. Ito, "Color Universal Design" (2008), without yellow.
"""

from __future__ import annotations

CATEGORICAL = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#666666")
"""Colours of runs and of phases; they repeat when there are more."""

REST = "#b4bac4"
"""Colour of the seconds that belong to no phase."""

SEQUENTIAL = {
    "light": ("#ffffff", "#dbe9f8", "#a3c9ee", "#5a9bd9", "#2366b3", "#0f3670"),
    "dark": ("#171a21", "#1b3454", "#20568c", "#3182c8", "#74b5ea", "#d6ebfd"),
}
"""Evenly spaced stops from the lowest value to the highest, by theme."""

DIVERGING = {
    "light": ("#8a3200", "#d5691d", "#f3b483", "#ffffff", "#a3c9ee", "#3f83c9", "#0f3f80"),
    "dark": ("#ffc79a", "#e07f33", "#7d4015", "#171a21", "#1e4a7a", "#4093d8", "#bfe0fb"),
}
"""Evenly spaced stops from below the centre to above it, by theme."""
