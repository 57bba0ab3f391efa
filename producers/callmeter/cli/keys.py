"""``callmeter keys``: API keys in a file that collectors follow."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import orjson

from callmeter.cli import options, serving, tables
from callmeter.errors import UsageError

if TYPE_CHECKING:
    from callmeter.collector.keyfile import KeyRecord

_COLUMNS = (
    "id", "prefix", "name", "scope", "projects", "state", "created_at", "expires_at",
    "last_used_at",
)  # fmt: skip


@click.group(name="keys")
def command() -> None:
    r"""Make, list and revoke API keys.

    The file holds hashes only: a key is shown when it is made and never again. A running collector
    takes a change up within two seconds.

    \b
    Example: export CALLMETER_KEYS_FILE=./keys.json
             callmeter keys create --project shop
             callmeter collector --kafka kafka://localhost:9092 --host 0.0.0.0
    """


@command.command(name="create")
@serving.keys_file
@click.option(
    "--project",
    "projects",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A project the key is for; * is every project. Repeatable.",
)
@click.option(
    "--scope",
    type=click.Choice(["write", "read"]),
    default="write",
    show_default=True,
    help="Whether it sends, or looks.",
)
@click.option("--name", default="", help="What people call it.")
@click.option(
    "--expires",
    default=None,
    metavar="WHEN",
    help="When it ends: 90d, 12h, or a date in UTC. Without it: never.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=None,
    help="Envelopes a second for this key.",
)
@click.option(
    "--rate-bytes",
    type=click.FloatRange(0, min_open=True),
    default=None,
    help="Bytes a second for this key.",
)
@click.option("--max-body", type=click.IntRange(1), default=None, help="Bytes of one body.")
@click.option("--max-envelope", type=click.IntRange(1), default=None, help="Bytes of one envelope.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.verbosity
def create(
    keys_file: Path | None,
    projects: tuple[str, ...],
    scope: Literal["write", "read"],
    name: str,
    expires: str | None,
    rate: float | None,
    rate_bytes: float | None,
    max_body: int | None,
    max_envelope: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    r"""Make a key and print it, this once.

    \b
    Example: callmeter keys create --project shop --name ci --expires 90d
    """  # fmt: skip
    from callmeter.collector.keyfile import create_key
    from callmeter.collector.keys import KeyLimits

    named = [project.strip() for project in projects]
    if not all(named):
        raise UsageError("a project has a name")
    now_us = time.time_ns() // 1000
    key, record = create_key(
        _file(keys_file),
        named,
        scope,
        now_us=now_us,
        name=name,
        expires_us=_expiry(expires, now_us),
        limits=KeyLimits(rate, rate_bytes, max_body, max_envelope),
    )
    if as_json:
        click.echo(orjson.dumps({"key": key, **_row(record, {}, now_us)}))
        return
    click.echo(key)
    if not quiet:
        where = ", ".join(named)
        click.echo(f"{record.id}: may {scope} {where}; it is not shown again", err=True)


@command.command(name="list")
@serving.keys_file
@options.formats
@options.verbosity
def list_(keys_file: Path | None, as_json: bool, as_csv: bool, quiet: bool) -> None:
    r"""List the keys: prefix, scope, projects, and when each was last used.

    \b
    Example: callmeter keys list
    """
    from callmeter.collector.keyfile import last_used, read_keys

    path = _file(keys_file)
    used_us, now_us = last_used(path), time.time_ns() // 1000
    rows = [_row(record, used_us, now_us) for record in read_keys(path)]
    tables.print_rows(
        rows if as_json else [{**row, "projects": ",".join(row["projects"])} for row in rows],
        _COLUMNS,
        as_json=as_json,
        as_csv=as_csv,
        empty="no keys yet: callmeter keys create makes one",
    )


@command.command(name="revoke")
@click.argument("which", metavar="ID")
@serving.keys_file
@options.verbosity
def revoke(which: str, keys_file: Path | None, quiet: bool) -> None:
    r"""Revoke the key with this id, prefix or name; collectors refuse it within two seconds.

    \b
    Example: callmeter keys revoke k_1a2b3c4d
    """
    from callmeter.collector.keyfile import revoke_key

    record = revoke_key(_file(keys_file), which, now_us=time.time_ns() // 1000)
    if not quiet:
        click.echo(f"{record.id} ({record.prefix}…) is revoked")


def _file(given: Path | None) -> Path:
    if given is None:
        raise UsageError("which key file? Give --keys-file or CALLMETER_KEYS_FILE")
    return given


def _expiry(text: str | None, now_us: int) -> int | None:
    """``90d`` is in 90 days here, not 90 days ago."""
    if text is None:
        return None
    moment = options.When().convert(text, None, None)
    now = datetime.now(UTC)
    if text[-1:] in "smhdw" and text[:-1].isdecimal():
        moment = now + (now - moment)
    expires_us = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    if expires_us <= now_us:
        raise UsageError(f"{text!r} has passed already")
    return expires_us


def _row(record: KeyRecord, used_us: dict[str, int], now_us: int) -> dict[str, Any]:
    return {
        "id": record.id,
        "prefix": record.prefix,
        "name": record.name,
        "scope": record.scope,
        "projects": record.projects,
        "state": record.state(now_us),
        "created_at": _at(record.created_us),
        "expires_at": _at(record.expires_us),
        "last_used_at": _at(used_us.get(record.id)),
    }


def _at(moment_us: int | None) -> str | None:
    if moment_us is None:
        return None
    return tables.iso(datetime.fromtimestamp(moment_us // 1_000_000, UTC))
