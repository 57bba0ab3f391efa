"""Reads Azure LLM inference traces (Azure/AzurePublicDataset, CC-BY 4.0) as calls.

Columns: ``TIMESTAMP`` (UTC, up to 7 decimals), ``ContextTokens``, ``GeneratedTokens``. The trace
has no latencies: they stay unknown. Every line becomes one event, a broken line an ``input_error``
that the meter makes a dead letter, so no line disappears.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from callmeter.errors import DataError
from callmeter.ids import uuid8

COLUMNS = "TIMESTAMP,ContextTokens,GeneratedTokens"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?\Z")
_COUNT = re.compile(r"\d{1,12}\Z")
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace that was looked at: its path, SHA-256 and number of data lines."""

    path: Path
    digest: str
    lines: int


def inspect(path: Path) -> TraceFile:
    """Read the file once: digest, line count, column check. ``DataError`` says what is wrong."""
    digest = hashlib.sha256()
    lines = 0
    try:
        with path.open("rb") as file:
            first = file.readline()
            _check_columns(path, first)
            digest.update(first)
            for line in file:
                digest.update(line)
                lines += 1
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    if not lines:
        raise DataError(f"{path}: has a header line and no data")
    return TraceFile(path, digest.hexdigest(), lines)


def event_lines(trace: TraceFile, *, provider: str, model: str, salt: str = "") -> Iterator[bytes]:
    """One encoded event for each data line, in order, the same bytes every time.

    Call ids are UUIDv8 of the file's digest, the line number and ``salt``.
    """
    seed = f"{trace.digest}\n{salt}\n".encode()
    with trace.path.open("rb") as file:
        file.readline()
        last_us = 0
        for number, raw in enumerate(file, start=2):
            text = raw.decode("utf-8", errors="replace").rstrip("\r\n")
            try:
                started_us, context, generated = _parse(text)
            except ValueError as exc:
                yield orjson.dumps(
                    {
                        "kind": "input_error",
                        "ts_us": last_us,
                        "file": trace.path.name,
                        "line_number": number,
                        "detail": str(exc),
                        "line": text[:_SHOWN],
                    }
                )
                continue
            last_us = started_us
            call_id = uuid8(seed, b"%d" % number)
            event: dict[str, Any] = {
                "kind": "call_end",
                "ts_us": started_us,
                "call_id": call_id,
                "trace_id": call_id.replace("-", ""),
                "started_us": started_us,
                "operation": "chat",
                "status": "ok",
                "provider": provider,
                "model": model,
                "usage": {"input": context, "output": generated},
            }
            yield orjson.dumps(event)


def _check_columns(path: Path, first: bytes) -> None:
    found = first.decode("utf-8-sig", errors="replace").strip()
    if found != COLUMNS:
        raise DataError(f"{path}: columns are {found[:120]!r}, expected {COLUMNS!r}")


def _parse(text: str) -> tuple[int, int, int]:
    fields = text.split(",")
    if len(fields) != 3:
        raise ValueError(f"{len(fields)} fields instead of 3")
    match = _TIMESTAMP.match(fields[0].strip())
    if not match:
        raise ValueError(f"not a timestamp: {fields[0][:40]!r}")
    whole = datetime.fromisoformat(match[1]).replace(tzinfo=UTC) - _EPOCH
    micros = int((match[2] or "0").ljust(6, "0")[:6])
    started_us = (whole.days * 86_400 + whole.seconds) * 1_000_000 + micros
    if started_us < 0:
        raise ValueError(f"a timestamp before 1970: {fields[0][:40]!r}")
    counts = []
    for name, field in zip(("ContextTokens", "GeneratedTokens"), fields[1:], strict=True):
        if not _COUNT.match(field.strip()):
            raise ValueError(f"{name} is not a count: {field[:40]!r}")
        counts.append(int(field))
    return started_us, counts[0], counts[1]
