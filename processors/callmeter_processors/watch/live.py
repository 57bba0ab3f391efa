"""The running windows of projects: what ``callmeter.live`` shows (design 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
import orjson
from msgspec import UNSET

from callmeter.schema.histogram import quantile_us
from callmeter.schema.live import LIVE_VERSION, LiveModel, LiveOpen, LiveProject, LiveWindow
from callmeter.schema.spend import Live

_MINUTE_US = 60_000_000
#: Window, its minutes, and how many of it are shown: the newest and those before.
SPANS: Mapping[Literal["minute", "hour", "day"], tuple[int, int]] = {
    "minute": (1, 5),
    "hour": (60, 2),
    "day": (1440, 2),
}
#: Windows are kept a little longer than they are shown, for partitions that lag behind.
_SLACK = 2

_Span = Literal["minute", "hour", "day"]
#: window, its number since the epoch, provider, model
_Cell = tuple[_Span, int, str, str]


class Sums:
    """One model in one window."""

    __slots__ = ("figures", "hist")

    def __init__(
        self, figures: list[int] | None = None, hist: dict[int, int] | None = None
    ) -> None:
        #: calls, failures, input tokens, output tokens, pico-USD, unpriced, usage unknown
        self.figures = figures or [0] * 7
        self.hist = hist or {}


class LiveBook:
    """Every project of a partition. Values are kept by cell in the journal."""

    def __init__(self, log_id: str) -> None:
        self._log_id = log_id
        self._projects: dict[str, dict[_Cell, Sums]] = {}
        self._open: dict[str, dict[tuple[str, str], int]] = {}
        self._newest: dict[str, int] = {}
        self._unsaid: set[str] = set()
        self._changed: dict[tuple[str, _Cell], Sums | None] = {}
        self._changed_open: set[tuple[str, str, str]] = set()

    def add(self, line: Live) -> None:
        """Add a line of ``spend`` to the windows it falls into, as far as they are kept."""
        project = line.project
        self._unsaid.add(project)
        if line.open:
            counts = self._open.setdefault(project, {})
            model = (line.provider, line.model)
            counts[model] = counts.get(model, 0) + line.open
            self._changed_open.add((project, *model))
        if not (line.calls or line.cost_pico != "0"):
            return
        newest = self._newest.get(project, 0)
        if line.minute > newest:
            newest = self._newest[project] = line.minute
        cells = self._projects.setdefault(project, {})
        figures = (
            line.calls, line.failures, line.input_tokens, line.output_tokens, int(line.cost_pico),
            line.unpriced, line.usage_unknown,
        )  # fmt: skip
        for span, (minutes, shown) in SPANS.items():
            number = line.minute // minutes
            if number <= newest // minutes - shown - _SLACK:
                continue
            cell = (span, number, line.provider, line.model)
            sums = cells.get(cell)
            if sums is None:
                sums = cells[cell] = Sums()
            sums.figures = [a + b for a, b in zip(sums.figures, figures, strict=True)]
            if line.latency_hist is not UNSET:
                for index, count in line.latency_hist.items():
                    sums.hist[index] = sums.hist.get(index, 0) + count
            self._changed[project, cell] = sums

    def say(self, at_us: int) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of every project that has changed since it was said last."""
        for project in sorted(self._unsaid):
            self._forget(project)
            yield project.encode(), msgspec.json.encode(self._project(project, at_us))
        self._unsaid.clear()

    def _project(self, project: str, at_us: int) -> LiveProject:
        windows: dict[tuple[_Span, int], list[LiveModel]] = {}
        newest = self._newest.get(project, 0)
        for cell in sorted(self._projects.get(project, {})):
            span, number, provider, model = cell
            minutes, shown = SPANS[span]
            if number > newest // minutes - shown:
                sums = self._projects[project][cell]
                windows.setdefault((span, number), []).append(_model(provider, model, sums))
        return LiveProject(
            v=LIVE_VERSION,
            log=self._log_id,
            project=project,
            at_us=at_us,
            windows=[
                LiveWindow(
                    window=span, start_us=number * SPANS[span][0] * _MINUTE_US, models=models
                )
                for (span, number), models in sorted(windows.items())
            ],
            open=[
                LiveOpen(provider=provider, model=model, open=count)
                for (provider, model), count in sorted(self._open.get(project, {}).items())
                if count
            ],
        )

    def _forget(self, project: str) -> None:
        cells = self._projects.get(project, {})
        newest = self._newest.get(project, 0)
        for cell in list(cells):
            minutes, shown = SPANS[cell[0]]
            if cell[1] <= newest // minutes - shown - _SLACK:
                del cells[cell]
                self._changed[project, cell] = None

    def drain(self) -> dict[str, bytes | None]:
        """The journal's changes since the last call."""
        changes: dict[str, bytes | None] = {}
        for (project, cell), sums in self._changed.items():
            key = orjson.dumps(["l", project, *cell]).decode()
            changes[key] = None if sums is None else _dump(sums)
        for project, provider, model in self._changed_open:
            count = self._open[project][provider, model]
            key = orjson.dumps(["n", project, provider, model]).decode()
            changes[key] = b"%d" % count if count else None
        self._changed, self._changed_open = {}, set()
        return changes

    def restore(self, key: list[Any], value: bytes) -> None:
        """Take over one of the journal's values; each project is said again."""
        project = key[1]
        self._unsaid.add(project)
        raw = orjson.loads(value)
        if key[0] == "n":
            self._open.setdefault(project, {})[key[2], key[3]] = raw
            return
        figures, hist = raw
        figures[4] = int(figures[4])
        sums = Sums(figures, {int(index): count for index, count in hist.items()})
        cell: _Cell = (key[2], key[3], key[4], key[5])
        self._projects.setdefault(project, {})[cell] = sums
        if cell[0] == "minute":
            self._newest[project] = max(self._newest.get(project, 0), cell[1])


def _dump(sums: Sums) -> bytes:
    figures: list[int | str] = [*sums.figures]
    figures[4] = str(figures[4])
    return orjson.dumps([figures, {str(index): count for index, count in sums.hist.items()}])


def _model(provider: str, model: str, sums: Sums) -> LiveModel:
    calls, failures, input_tokens, output_tokens, cost, unpriced, unknown = sums.figures
    made = LiveModel(
        provider=provider,
        model=model,
        calls=calls,
        failures=failures,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_pico=str(cost),
        unpriced=unpriced,
        usage_unknown=unknown,
    )
    quantiles = [quantile_us(sums.hist, q) for q in (0.5, 0.95, 0.99)]
    if quantiles[0] is not None:
        made.latency_p50_us, made.latency_p95_us, made.latency_p99_us = (
            round(q or 0) for q in quantiles
        )
    return made
