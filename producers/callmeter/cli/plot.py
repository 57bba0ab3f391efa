"""A plot made of plain characters, for terminals and pipes alike."""

from __future__ import annotations

from collections.abc import Sequence

_WIDTH = 64
_HEIGHT = 12


def plot(
    places: Sequence[float], values: Sequence[float], *, width: int = _WIDTH, height: int = _HEIGHT
) -> str:
    """Values over places, each point a ``*``; several in one column are drawn one by one.

    Lengths must be equal and at least one; the axes carry the extremes of both.

    >>> print(plot([0, 1, 2], [0.0, 1.0, 0.0], width=3, height=2))
    1 | *
    0 |* *
      +---
       0 2
    """
    low, high = min(values), max(values)
    first, last = min(places), max(places)
    grid = [[" "] * width for _ in range(height)]
    for place, value in zip(places, values, strict=True):
        column = _cell(place, first, last, width)
        row = height - 1 - _cell(value, low, high, height)
        grid[row][column] = "*"
    labels = [""] * height
    labels[-1] = f"{low:.5g}"
    if height > 1 and high != low:
        labels[0] = f"{high:.5g}"
    room = max(map(len, labels))
    lines = [
        f"{label:>{room}} |{''.join(cells)}".rstrip()
        for label, cells in zip(labels, grid, strict=True)
    ]
    lines.append(f"{'':>{room}} +{'-' * width}")
    begin, end = f"{first:.6g}", f"{last:.6g}"
    lines.append(f"{'':>{room}}  {begin}{end:>{max(width - len(begin), len(end) + 1)}}")
    return "\n".join(lines)


def _cell(value: float, low: float, high: float, cells: int) -> int:
    """Which of ``cells`` between the extremes; the middle if there is but one value."""
    if high == low:
        return (cells - 1) // 2
    return round((value - low) / (high - low) * (cells - 1))
