"""The numbered SQL files: found, split into statements, rendered for a deployment."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

from callmeter.errors import ConfigError

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql\Z")
_TABLE = re.compile(r"^CREATE TABLE IF NOT EXISTS (\w+)", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
#: A quoted text, a comment, or the end of a statement; everything else is passed over.
_TOKEN = re.compile(r"'(?:[^'\\]|\\.|'')*'|`[^`]*`|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|;", re.DOTALL)
#: Statements that may run twice: what makes going on after a failure safe.
_REPEATABLE = re.compile(
    r"CREATE (TABLE|MATERIALIZED VIEW|VIEW|DATABASE|DICTIONARY) IF NOT EXISTS\b"
    r"|DROP (TABLE|VIEW|DICTIONARY) IF EXISTS\b"
    r"|ALTER TABLE\b.*\b(IF NOT EXISTS|IF EXISTS|MODIFY (TTL|SETTING|COMMENT|QUERY))\b"
    # Rows of an older table, those that the newer one lacks.
    r"|INSERT INTO (?P<table>\w+)\s+SELECT\b.*\bNOT IN \(SELECT [\w, ]+ FROM (?P=table)\)\Z",
    re.DOTALL,
)

REPLICATED_WINDOW_SECONDS = 604_800


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the placeholders stand for.

    ``dedup_window`` is the number of blocks a table remembers (per table, all partitions together).
    Only the last insert of a log partition can come again, so it must outlast the inserts of all
    others while one partition changes hands: 32 partitions at an insert a second for ten minutes
    are 19,200. A chDB has one writer, which stops as a whole.
    """

    replicated: bool = False
    cluster: str | None = None
    dedup_window: int | None = None

    def placeholders(self) -> Mapping[str, str]:
        """``CL``, ``R`` and ``D`` as text."""
        window = self.dedup_window or (20_000 if self.replicated else 10_000)
        dedup = (
            f"replicated_deduplication_window = {window}, "
            f"replicated_deduplication_window_seconds = {REPLICATED_WINDOW_SECONDS}"
            if self.replicated
            else f"non_replicated_deduplication_window = {window}"
        )
        return {
            "CL": f"ON CLUSTER `{self.cluster}`" if self.cluster else "",
            "R": "Replicated" if self.replicated else "",
            "D": dedup,
        }


@dataclass(frozen=True, slots=True)
class SqlFile:
    """One migration: ``0002_events.sql`` is version 2, name ``events``."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text as shipped, before rendering: the same on every deployment."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def tables(self) -> list[str]:
        """The tables that the file makes."""
        return _TABLE.findall(self.sql)

    @property
    def stored(self) -> list[str]:
        """Those of its tables that store rows: the others only feed views."""
        made = ((_TABLE.match(text), text) for text in split(self.sql))
        return [table[1] for table, text in made if table and "MergeTree" in text]

    def statements(self, deployment: Deployment) -> list[str]:
        """The statements, rendered.

        ``ConfigError`` for a placeholder that nothing fills, and for a statement that could not run
        a second time.
        """
        rendered = render(self.sql, deployment)
        statements = list(split(rendered))
        for number, statement in enumerate(statements, 1):
            if not _REPEATABLE.match(statement):
                raise ConfigError(
                    f"migration {self.version:04d}_{self.name}, statement {number}, cannot be run "
                    f"twice: it lacks IF [NOT] EXISTS: {statement[:80]}"
                )
        return statements


def render(sql: str, deployment: Deployment) -> str:
    """Fill ``${CL}``, ``${R}`` and ``${D}``; ``ConfigError`` for any other."""
    values = deployment.placeholders()
    unknown = sorted(set(_PLACEHOLDER.findall(sql)) - values.keys())
    if unknown:
        raise ConfigError(f"a migration has unknown placeholders: {', '.join(unknown)}")
    return _PLACEHOLDER.sub(lambda found: values[found[1]], sql)


def split(sql: str) -> Iterator[str]:
    """Statements ended by ``;``, comments left out, quoted text untouched."""
    kept: list[str] = []
    position = 0
    for token in _TOKEN.finditer(sql):
        kept.append(sql[position : token.start()])
        position = token.end()
        if token[0] == ";":
            if statement := "".join(kept).strip():
                yield statement
            kept = []
        elif not token[0].startswith(("--", "/*")):
            kept.append(token[0])
    kept.append(sql[position:])
    if statement := "".join(kept).strip():
        yield statement


def shipped() -> tuple[SqlFile, ...]:
    """The migrations of this version in order; ``ConfigError`` if a number is missing or double."""
    folder = resources.files("callmeter_sinks.clickhouse") / "migrations"
    files = []
    for entry in folder.iterdir():
        named = _FILE.match(entry.name)
        if named:
            files.append(SqlFile(int(named[1]), named[2], entry.read_text(encoding="utf-8")))
    files.sort(key=lambda file: file.version)
    if [file.version for file in files] != list(range(1, len(files) + 1)):
        raise ConfigError("the installed migrations are not numbered from 0001 without holes")
    return tuple(files)
