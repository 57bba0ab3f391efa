"""Options that several commands share."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from callmeter.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

FILE_FORMATS = ("parquet", "arrow", "csv", "jsonl")
DEFAULT_DIR = "./.callmeter"
#: The Monitor hook's default, so that hook works untouched.
DEFAULT_PORT = 4248
_AGO = re.compile(r"(\d+)([smhdw])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


#: Their errors reach the user once, as callmeter's own line; with -v also as they were said.
_LIBRARIES = (
    "aiohttp",
    "aiokafka",
    "asyncio",
    "clickhouse_connect",
    "faust",
    "kafka",
    "mode",
    "urllib3",
)


def _set_up_logging(_ctx: click.Context, _param: click.Parameter, verbose: bool) -> None:
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        level=logging.DEBUG if verbose else logging.WARNING,
        force=True,
    )
    if not verbose:
        # On the handler: some libraries set their loggers' levels themselves when imported.
        for handler in logging.getLogger().handlers:
            handler.addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] not in _LIBRARIES


def verbosity(command: F) -> F:
    """``-q`` and ``-v``; sets up logging to stderr when the command is run."""
    command = click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")(
        command
    )
    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_up_logging,
        help="Say what is being done, with tracebacks.",
    )(command)  # fmt: skip


def directory(command: F) -> F:
    """``--dir``: the data directory of the embedded form."""
    return click.option(
        "--dir", "directory", type=click.Path(path_type=Path, file_okay=False),
        envvar="CALLMETER_DIR", default=None, show_default=DEFAULT_DIR,
        help="Data directory of the embedded form.",
    )(command)  # fmt: skip


def store(command: F) -> F:
    """``--store``: where ClickHouse is."""
    return click.option(
        "--store", "store_url", envvar="CALLMETER_STORE", default=None, metavar="URL",
        help="ClickHouse: clickhouse://user:password@host:port/db, clickhouses://…, or chdb:DIR.",
    )(command)  # fmt: skip


def kafka(command: F) -> F:
    """``--kafka``: the broker, where it is one of several ways."""
    return _kafka(required=False)(command)


def required_kafka(command: F) -> F:
    """``--kafka``: the broker, where nothing goes without it."""
    return _kafka(required=True)(command)


def _kafka(*, required: bool) -> Callable[[F], F]:
    return click.option(
        "--kafka", "kafka_url", envvar="CALLMETER_KAFKA", default=None, metavar="URL",
        required=required, help="Kafka: kafka://host:port[,host:port], or kafka+ssl://….",
    )  # fmt: skip


def listening(command: F) -> F:
    """``--host``, ``--port`` and the keys of whatever serves the collector's routes."""
    command = click.option(
        "--read-key", "read_keys", multiple=True, envvar="CALLMETER_READ_KEYS",
        metavar="KEY[:PROJECT]", help="API key that may read. Repeatable.",
    )(command)  # fmt: skip
    command = click.option(
        "--key", "api_keys", multiple=True, envvar="CALLMETER_KEYS", metavar="KEY:PROJECT",
        help="API key that may write to these projects; needed beyond loopback. Repeatable.",
    )(command)  # fmt: skip
    command = click.option(
        "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535),
        help="Port to listen on; 0 takes a free one.",
    )(command)  # fmt: skip
    return click.option(
        "--host", default="127.0.0.1", show_default=True, help="Address to listen on."
    )(command)


def formats(command: F) -> F:
    """``--json`` and ``--csv`` of commands that print a table."""
    command = click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def output(command: F) -> F:
    """``--output`` and ``--format``: a file that the engine writes."""
    command = click.option(
        "--format", "file_format", type=click.Choice(FILE_FORMATS), default=None,
        help="Of the file; else told by its name.",
    )(command)  # fmt: skip
    return click.option(
        "--output", type=click.Path(path_type=Path, dir_okay=False), default=None, metavar="FILE",
        help="Write this file: .parquet, .arrow, .csv or .jsonl.",
    )(command)  # fmt: skip


def output_format(path: Path | None, given: str | None) -> str | None:
    """The format of a file that is to be written, None without one; ``UsageError`` if unclear."""
    if path is None:
        if given is not None:
            raise UsageError("--format is of a file: give --output FILE")
        return None
    said = given or path.suffix.removeprefix(".")
    if said not in FILE_FORMATS:
        raise UsageError(f"which format is {path.name}? give --format {'|'.join(FILE_FORMATS)}")
    return said


def filters(where: tuple[str, ...]) -> dict[str, list[str]]:
    """``--where DIM=VALUE`` as filters: values of one dimension are alternatives."""
    found: dict[str, list[str]] = {}
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise UsageError(f"--where takes DIM=VALUE, not {condition!r}")
        found.setdefault(name.strip(), []).append(value)
    return found


def project(command: F) -> F:
    """``--project``: limit a question to one project."""
    return click.option("--project", default=None, help="Only this project.")(command)


class When(click.ParamType):
    """A point in time: ``2026-11-01``, ``2026-11-01T12:00`` (UTC), or ``2h`` ago (s m h d w)."""

    name = "when"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        ago = _AGO.match(value)
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: give 2026-11-01, 2026-11-01T12:00 or 2h", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def period(command: F) -> F:
    """``--since`` and ``--until`` by event time."""
    command = click.option("--until", type=When(), default=None, help="Before this time.")(command)
    return click.option(
        "--since", type=When(), default=None,
        help="From this time on: a date, a time in UTC, or 2h, 7d ago.",
    )(command)  # fmt: skip
