"""``callmeter doctor``: looks at every piece and says what is wrong and what to do."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import orjson

from callmeter._version import __version__
from callmeter.cli import options
from callmeter.errors import CallmeterError

_EXTRAS = {
    "cli": ("click", "rich"),
    "kafka": ("aiokafka", "cramjam"),
    "collector": ("aiohttp", "zstandard"),
    "prices": ("genai_prices",),
    "processors": ("faust",),
    "sinks": ("clickhouse_connect",),
    "embedded": ("chdb",),
}


class Finding(NamedTuple):
    """One piece: its name, whether it is well (None: not asked for), and a line for people."""

    piece: str
    well: bool | None
    detail: str


@click.command(name="doctor")
@options.directory
@options.kafka
@options.store
@click.option("--url", default=None, metavar="URL", help="A collector: http://host:4248.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.verbosity
def command(
    directory: Path | None,
    kafka_url: str | None,
    store_url: str | None,
    url: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    r"""Check what is installed and whether everything that is named can be reached.

    Exit code 0: all is well. 1: something is not.

    \b
    Example: callmeter doctor --kafka kafka://localhost:9092 --store clickhouse://localhost:8123/callmeter
    """
    findings = [*_installed(), *_looked_at(directory, kafka_url, store_url, url)]
    sick = [finding for finding in findings if finding.well is False]
    if as_json:
        click.echo(orjson.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            if quiet and finding.well is not False:
                continue
            mark = {True: "ok", False: "WRONG", None: "-"}[finding.well]
            click.echo(f"{mark:<6} {finding.piece:<12} {finding.detail}")
    return 1 if sick else 0


def _installed() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("callmeter", True, f"{__version__} on Python {version}")
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            yield Finding(extra, None, f"not installed: pip install 'callmeter[{extra}]'")
        else:
            yield Finding(extra, True, "installed")


def _looked_at(
    directory: Path | None, kafka_url: str | None, store_url: str | None, url: str | None
) -> Iterator[Finding]:
    if directory is not None or (kafka_url is None and store_url is None and url is None):
        home = directory or Path(options.DEFAULT_DIR)
        yield _try("directory", lambda: _directory(home))
    if kafka_url is not None:
        yield _try("kafka", lambda: _kafka(kafka_url))
    if store_url is not None:
        yield _try("store", lambda: _store(store_url))
    if url is not None:
        yield _try("collector", lambda: _collector(url))


def _try(piece: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(piece, True, look())
    except CallmeterError as exc:
        return Finding(piece, False, str(exc))
    except ModuleNotFoundError as exc:
        return Finding(piece, False, f"{exc.name} is not installed (see above)")


def _directory(home: Path) -> str:
    from callmeter.embedded import LOG_FILE, running
    from callmeter.log.sqlite_log import SqliteLog

    if not (home / LOG_FILE).exists():
        return f"{home}: no data yet; `callmeter up` makes it"
    owner = running(home)
    with SqliteLog(home / LOG_FILE) as log:
        ends = sum(log.end_offsets("events").values())
        metered = sum(log.position("meter-state", part) or 0 for part in range(log.partitions))
    state = f"served at {owner.url} by pid {owner.pid}" if owner else "at rest"
    return f"{home}: {state}, {ends:,} envelopes in the log, {ends - metered:,} not yet metered"


def _kafka(kafka_url: str) -> str:
    from callmeter.log.kafka_admin import check_topics, read_log_id
    from callmeter.log.kafka_settings import KafkaSettings

    settings = KafkaSettings.from_url(kafka_url)

    async def look() -> str:
        partitions = await check_topics(settings)
        return f"{settings.display}: log {await read_log_id(settings)}, {partitions} partitions"

    return asyncio.run(look())


def _store(store_url: str) -> str:
    from callmeter_sinks.clickhouse.migrate import check_schema
    from callmeter_sinks.clickhouse.store import open_store

    store = open_store(store_url)
    try:
        check_schema(store)
        version = store.query("SELECT version()").rows[0][0]
        return f"{store.name}: ClickHouse {version}, schema up to date"
    finally:
        store.close()


def _collector(url: str) -> str:
    import http.client
    from urllib.parse import urlsplit

    from callmeter.errors import UnreachableError

    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(200).decode("utf-8", "replace").strip()
    except OSError as exc:
        raise UnreachableError(f"{url}: {exc}") from exc
    finally:
        connection.close()
    if answer.status != 200:
        raise UnreachableError(f"{url}: not ready ({answer.status}): {body}")
    return f"{url}: ready"
