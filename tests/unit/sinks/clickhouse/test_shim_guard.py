"""Statements as ``formatQuery`` writes them; the engine's part is an integration test."""

from __future__ import annotations

import pytest

from callmeter_sinks.clickhouse.shim_guard import may_set, refusal


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "SELECT 'INTO OUTFILE file(', profile(x)",
        "SELECT 'it\\'s file(1)'",
        "SHOW TABLES",
        "DESCRIBE TABLE calls",
        "EXPLAIN SELECT 1",
        "EXISTS TABLE calls",
    ],
)
def test_reading_the_store_is_fine(statement: str) -> None:
    assert refusal(statement) is None


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT file('/etc/passwd')",
        "SELECT `file`('/etc/passwd')",
        "SELECT FILE ('x')",
        "SELECT *\nFROM Python(os)",
        "SELECT 1\nINTO OUTFILE 'x'",
        "DESCRIBE TABLE file('x')",
        "INSERT INTO calls FROM INFILE 'x' FORMAT CSV",
        "SYSTEM STOP MERGES",
        "KILL QUERY WHERE 1",
        "USE system",
        "SET readonly = 0",
        "DROP TABLE calls",
    ],
)
def test_anything_that_reaches_outside_is_refused(statement: str) -> None:
    assert refusal(statement) is not None


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("max_execution_time", True),
        ("output_format_json_quote_64bit_integers", True),
        ("max_memory_usage", False),
        ("readonly", False),
        ("output_format_schema", False),
        ("format_template_row", False),
        ("max_execution_time = 1, readonly", False),
    ],
)
def test_settings(name: str, allowed: bool) -> None:
    assert may_set(name) is allowed
