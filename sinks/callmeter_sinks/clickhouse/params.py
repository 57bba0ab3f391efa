"""What may go into SQL text: names checked against a grammar, and values never."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from callmeter.errors import UsageError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?\Z")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*):[^{}]+\}")


def checked(sql: str, params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The parameters, if each is a server-side placeholder ``{name:Type}`` of the statement.

    Without this check clickhouse-connect falls back to formatting values into the text itself.
    ``UsageError`` names a parameter that the statement lacks, or a placeholder without a value.
    """
    named = set(_PLACEHOLDER.findall(sql))
    given = dict(params or {})
    extra = sorted(given.keys() - named)
    if extra:
        raise UsageError(f"the statement has no placeholder for {', '.join(extra)}")
    missing = sorted(named - given.keys())
    if missing:
        raise UsageError(f"no value given for {', '.join(missing)}")
    return given or None


def is_identifier(name: str) -> bool:
    """Whether a name can stand in SQL as it is."""
    return bool(_NAME.match(name))


def table_name(name: str) -> str:
    """``table`` or ``database.table`` as plain identifiers, else ``UsageError``."""
    if not _TABLE.match(name):
        raise UsageError(f"not the name of a table: {name!r}")
    return name


def format_name(name: str) -> str:
    """A format such as ``RowBinary``, as a plain identifier, else ``UsageError``."""
    if not _NAME.match(name):
        raise UsageError(f"not the name of a format: {name!r}")
    return name
