from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from rich.console import Console

from callmeter_sinks.queries import Figures, Report, ReportRow
from callmeter_sinks.report import as_csv, as_dict, as_json, as_table, plain_usd

KNOWN = Figures(2, 3, 1, 10, 5, Decimal("5.807479500000"), 0, 0, 1.23456, 2.0, 3.0)
UNKNOWN = Figures(1, 1, 0, None, None, None, 0, 1, None, None, None)
HOUR = datetime(2026, 3, 1, 12, tzinfo=UTC)
REPORT = Report(
    ["hour", "model"],
    [
        ReportRow({"hour": HOUR, "model": "gpt-4o"}, KNOWN),
        ReportRow({"hour": HOUR, "model": "=1+1"}, UNKNOWN),
    ],
    KNOWN,
    HOUR,
    None,
)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("5.807479500000", "5.8074795"),
        ("0.000000000000", "0"),
        ("-0.000000000001", "-0.000000000001"),
        ("1E+3", "1000"),
        ("100", "100"),
        ("-0E-12", "0"),
        ("123456789012345.100000000000", "123456789012345.1"),
    ],
)
def test_money_is_plain_text(amount: str, text: str) -> None:
    assert plain_usd(Decimal(amount)) == text


def test_json_has_rows_and_totals_with_money_as_text_and_unknown_as_null() -> None:
    said = json.loads(as_json(REPORT))
    assert said["rows"][0] == {
        "hour": "2026-03-01T12:00:00Z", "model": "gpt-4o", "calls": 2, "attempts": 3,
        "failures": 1, "input_tokens": 10, "output_tokens": 5, "cost_usd": "5.8074795",
        "unpriced_calls": 0, "usage_unknown": 0, "latency_p50_ms": 1.235, "latency_p95_ms": 2.0,
        "latency_p99_ms": 3.0,
    }  # fmt: skip
    assert said["rows"][1]["cost_usd"] is None
    assert said["rows"][1]["input_tokens"] is None
    assert said["rows"][1]["latency_p50_ms"] is None
    assert said["totals"]["cost_usd"] == "5.8074795"
    assert said["since"] == "2026-03-01T12:00:00Z"
    assert said["until"] is None


def test_csv_leaves_unknown_empty_and_makes_formulas_inert() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(REPORT))))
    assert lines[0]["cost_usd"] == "5.8074795"
    assert lines[1]["cost_usd"] == ""
    assert lines[1]["model"] == "'=1+1"
    assert list(lines[0]) == list(as_dict(REPORT)["rows"][0])


def test_the_table_has_a_total_and_hides_what_says_nothing() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(as_table(REPORT))
    text = console.export_text()
    assert "5.8074795" in text
    assert "2026-03-01 12:00" in text
    assert "–" in text
    assert "total" in text
    assert "attempts" in text  # 3 attempts, 2 calls
    assert "unpriced" not in text
