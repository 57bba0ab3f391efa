"""Which state rows this program may read: the rule of rolling upgrades (docs/decisions/0018).

A row says its format and its log before anything else is looked at, so that a row of any later
format is known as such, whatever else it holds.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from callmeter.errors import DataError, NewerSchemaError


class _Head(Struct):
    v: int = 0
    log: str = ""


_decoder = msgspec.json.Decoder(_Head)


def readable(key: bytes, value: bytes, log_id: str, newest: int) -> bool:
    """Whether a row is to be read: False if it speaks of another log.

    ``NewerSchemaError`` if it is of a format after ``newest``, ``DataError`` if it is no row:
    going on without it would count twice.
    """
    try:
        head = _decoder.decode(value)
    except msgspec.DecodeError as exc:
        raise DataError(f"state row {_name(key)} cannot be read: {exc}") from exc
    if head.log != log_id:
        return False
    if head.v > newest:
        raise NewerSchemaError(
            f"state row {_name(key)} has format {head.v}, this callmeter reads up to {newest}: "
            "a newer worker has had this partition; update this one"
        )
    return True


def _name(key: bytes) -> str:
    return key.decode(errors="replace")
