"""From clickhouse-connect's errors to the store's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from callmeter.errors import ConfigError, UnreachableError
from callmeter_sinks.clickhouse.store import BUSY_CODES, PermanentStoreError, StoreBusyError

_CODE = re.compile(r"Code:\s*(\d+)")
_SAID = re.compile(r"DB::Exception:\s*(.*)")
_ERRNO = re.compile(r"\[Errno -?\d+\] [^\"')]+")
_AUTHENTICATION_FAILED = frozenset({192, 193, 194, 516})


@contextmanager
def refused(name: str) -> Iterator[None]:
    """Turns what the client raises into the errors of ``store``; ``name`` carries no secret.

    The engine's code decides: user or password refused is a ``ConfigError``, "later" a
    ``StoreBusyError``, anything else a ``PermanentStoreError``; without a code it is
    ``UnreachableError``, unless the client itself refused the statement.
    """
    from clickhouse_connect.driver.exceptions import ClickHouseError

    try:
        yield
    except ClickHouseError as exc:
        text = _one_line(str(exc))
        code = _code(exc, text)
        if code is None:
            raise _without_code(name, exc, text) from exc
        said = _SAID.search(text)
        text = said[1] if said else text
        if code in _AUTHENTICATION_FAILED:
            raise ConfigError(f"{name} refuses the user or password (code {code})") from exc
        if code in BUSY_CODES:
            raise StoreBusyError(code, text) from exc
        raise PermanentStoreError(code, text) from exc
    except OSError as exc:
        raise UnreachableError(f"{name}: {_one_line(str(exc))}") from exc


def _code(exc: Exception, text: str) -> int | None:
    code = getattr(exc, "code", None)
    if isinstance(code, int):
        return code
    found = _CODE.search(text)
    return int(found[1]) if found else None


def _without_code(name: str, exc: Exception, text: str) -> Exception:
    """No engine's code: transport trouble, or the client's own refusal of a statement."""
    from clickhouse_connect.driver.exceptions import (
        DataError,
        NotSupportedError,
        ProgrammingError,
    )

    if isinstance(exc, ProgrammingError | NotSupportedError | DataError):
        return PermanentStoreError(0, text)
    cause = _ERRNO.search(text)
    return UnreachableError(f"{name} is not reachable: {cause[0] if cause else text[:200]}")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:2000]
