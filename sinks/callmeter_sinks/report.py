"""A report as people and programs read it: table, JSON, CSV. Money is plain text, never a float."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from callmeter.errors import MissingExtraError
from callmeter_sinks.queries.usage import MEASURES, Figures, Report

if TYPE_CHECKING:
    from rich.table import Table

_HEADINGS = {
    "calls": "calls",
    "attempts": "attempts",
    "failures": "failures",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "cost_usd": "cost USD",
    "unpriced_calls": "unpriced",
    "usage_unknown": "usage unknown",
    "latency_p50_ms": "p50 ms",
    "latency_p95_ms": "p95 ms",
    "latency_p99_ms": "p99 ms",
}
_WINDOW_FORMATS = {"minute": "%Y-%m-%d %H:%M", "hour": "%Y-%m-%d %H:%M", "day": "%Y-%m-%d"}


def plain_usd(amount: Decimal) -> str:
    """USD without exponent and without trailing zeros: ``5.8074795``.

    >>> plain_usd(Decimal("5.807479500000"))
    '5.8074795'
    """
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def as_dict(report: Report) -> dict[str, Any]:
    """``{"rows": […], "totals": {…}}``: dimensions and measures by name, unknown as None.

    Money is text, latencies milliseconds with three digits, windows ISO 8601 in UTC.
    """
    return {
        "rows": [{**_key(row.key), **_measures(row.figures)} for row in report.rows],
        "totals": _measures(report.totals),
        "since": _iso(report.since),
        "until": _iso(report.until),
    }


def as_json(report: Report) -> str:
    """One line of JSON, as ``callmeter report --json`` prints it."""
    return orjson.dumps(as_dict(report)).decode()


def as_csv(report: Report) -> str:
    """A header and a line a row, without totals; unknown is an empty field.

    A text that a spreadsheet would take for a formula gets a leading apostrophe (OWASP, "CSV
    Injection").
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*report.by, *MEASURES))
    for row in report.rows:
        keys = (_inert(value) for value in _key(row.key).values())
        measures = ("" if value is None else value for value in _measures(row.figures).values())
        writer.writerow((*keys, *measures))
    return out.getvalue()


def as_table(report: Report) -> Table:
    """A rich table with the totals as its last line; unknown is ``–``."""
    try:
        from rich.table import Table
        from rich.text import Text
    except ImportError as exc:
        raise MissingExtraError("rich", "cli") from exc
    # A column that says the same of every row and of the totals is left to --json.
    shown = [name for name in MEASURES if _worth_showing(report, name)]
    table = Table(show_footer=bool(report.by), header_style="bold", footer_style="bold")
    totals = _cells(report.totals)
    for place, name in enumerate(report.by):
        table.add_column(name, footer="total" if place == 0 else "", overflow="fold", min_width=8)
    for name in shown:
        table.add_column(_HEADINGS[name], footer=totals[name], justify="right", no_wrap=True)
    for row in report.rows:
        keys = [Text(_window(name, value)) for name, value in row.key.items()]
        cells = _cells(row.figures)
        table.add_row(*keys, *(cells[name] for name in shown))
    return table


def _worth_showing(report: Report, name: str) -> bool:
    if name == "attempts":
        return report.totals.attempts != report.totals.calls
    if name in ("unpriced_calls", "usage_unknown"):
        return bool(getattr(report.totals, name))
    return True


def _measures(figures: Figures) -> dict[str, Any]:
    values = {name: getattr(figures, name) for name in MEASURES}
    if figures.cost_usd is not None:
        values["cost_usd"] = plain_usd(figures.cost_usd)
    for name in MEASURES:
        if name.startswith("latency_") and values[name] is not None:
            values[name] = round(values[name], 3)
    return values


def _cells(figures: Figures) -> dict[str, str]:
    return {name: _cell(value) for name, value in _measures(figures).items()}


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return str(value)


def _window(name: str, value: str | datetime) -> str:
    if isinstance(value, datetime):
        return value.strftime(_WINDOW_FORMATS[name])
    return value or "–"


def _key(key: Mapping[str, str | datetime]) -> dict[str, str]:
    return {name: v if isinstance(v, str) else _iso(v) or "" for name, v in key.items()}


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment is not None else None


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
