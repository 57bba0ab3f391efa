"""What a chart draws, as data: the page carries it as text, the script gives it to the library.

Numbers here place lines on a screen. What is read stands in ``texts``, made where money is exact;
the page carries them once, in the table beside the chart, and the tooltip reads them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import orjson

Kind = Literal["bars", "lines"]
#: Colours that the style sheet has.
COLOURS = 8


@dataclass(frozen=True, slots=True)
class Line:
    """One series: where its points stand (None is a hole), what each says, a colour's name."""

    label: str
    values: Sequence[float | None]
    texts: Sequence[str]
    colour: str = "c1"


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line: an annotation on a curve."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart and the table beside it. ``x`` is seconds since the epoch, or steps."""

    id: str
    title: str
    kind: Kind
    x: Sequence[float]
    x_texts: Sequence[str]
    lines: Sequence[Line]
    unit: str
    time: bool = True
    marks: Sequence[Mark] = ()
    note: str = ""

    @property
    def data(self) -> str:
        """JSON for the script. It goes into an attribute, where the template escapes it."""
        said: dict[str, Any] = {
            "kind": self.kind,
            "time": self.time,
            "unit": self.unit,
            "x": self.x,
            "lines": [
                {"label": line.label, "values": self._places(line), "colour": line.colour}
                for line in self.lines
            ],
            "marks": [{"x": mark.x, "label": mark.label} for mark in self.marks],
        }
        return orjson.dumps(said).decode()

    @property
    def rows(self) -> Iterator[tuple[str, Sequence[str]]]:
        """The table: for each point what it is and what the lines say there."""
        said = zip(*(line.texts for line in self.lines), strict=True)
        yield from zip(self.x_texts, said, strict=True)

    def _places(self, line: Line) -> Sequence[float | None]:
        """Six digits are finer than a screen where the axis begins at 0; another may begin near."""
        if self.unit == "value":
            return line.values
        return [None if value is None else float(f"{value:.6g}") for value in line.values]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return all(value is None for line in self.lines for value in line.values)


def stacked(
    amounts: Sequence[tuple[str, Sequence[Decimal]]], texts: Sequence[Sequence[str]]
) -> list[Line]:
    """Series on top of each other, the highest first, so that lower bars are drawn over it.

    Sums are exact here; only their height on the screen is a float.
    """
    lines: list[Line] = []
    below = [Decimal(0)] * (len(amounts[0][1]) if amounts else 0)
    for place, ((label, values), said) in enumerate(zip(amounts, texts, strict=True)):
        below = [low + value for low, value in zip(below, values, strict=True)]
        lines.append(Line(label, [float(value) for value in below], said, colour(place)))
    return lines[::-1]


def colour(place: int) -> str:
    """The name of a series' colour in the style sheet: ``c1`` to ``c8``, over again."""
    return f"c{place % COLOURS + 1}"


def epoch(windows: Sequence[datetime]) -> list[int]:
    """Begins of windows as whole seconds."""
    return [int(start.timestamp()) for start in windows]
