"""A plot of plain characters: where points are drawn, and what the axes say."""

from __future__ import annotations

from callmeter.cli.plot import plot


def test_points_and_axes() -> None:
    assert plot([0, 1, 2], [0.0, 1.0, 0.0], width=3, height=2).splitlines() == [
        "1 | *",
        "0 |* *",
        "  +---",
        "   0 2",
    ]


def test_one_value_is_in_the_middle() -> None:
    lines = plot([5], [2.0], width=5, height=3).splitlines()
    assert lines[1] == "  |  *"
    assert lines[2] == "2 |"
