"""The runtime's own state row: how far a partition has been read (docs/reference/formats.md)."""

from __future__ import annotations

import orjson

from callmeter.errors import CallmeterError, DataError, NewerSchemaError

POSITION_KEY = b"position"
POSITION_VERSION = 1


class PositionConflictError(CallmeterError):
    """Another owner has moved the stored position: drop the memory and restore from the log."""


def encode_position(log_id: str, next_offset: int) -> bytes:
    """The row's value; ``next_offset`` is the next offset to read."""
    return orjson.dumps({"v": POSITION_VERSION, "log": log_id, "next": next_offset})


def decode_position(value: bytes, log_id: str) -> int | None:
    """The next offset to read, or None if the row speaks of another log.

    ``NewerSchemaError`` if a newer callmeter wrote it, ``DataError`` if it is not a position at
    all: going on from a guess would count twice or lose.
    """
    try:
        raw = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise DataError(f"the state's position row is not JSON: {exc}") from exc
    version = raw.get("v") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > POSITION_VERSION:
        raise NewerSchemaError(
            f"the state was written by a newer callmeter (position format {version}): upgrade"
        )
    if version != POSITION_VERSION or not isinstance(raw.get("next"), int):
        raise DataError("the state's position row lacks 'v' or 'next'")
    return int(raw["next"]) if raw.get("log") == log_id else None
