"""Numbers and settings as tables show them."""

import math
from collections.abc import Sequence


def none_if_nan(value: float) -> float | None:
    """For JSON, which knows no nan."""
    return None if math.isnan(value) else value


def percent(value: float) -> str:
    """0..1 in percent, a dash for nan."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def aligned(lines: Sequence[Sequence[str]], named: int = 1) -> list[str]:
    """Cells in columns, the first `named` of them words, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = ["<" if column < named else ">" for column in range(len(widths))]
    return ["  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip() for line in lines]
