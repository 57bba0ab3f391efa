"""What was taken from the log and is to be delivered: one SQLite file that survives kill -9.

    alerts      every alert taken, by id, for as long as its topic may show it again
    deliveries  an alert and a target: pending until it is sent or dead
    positions   where to go on reading, by log and partition

Alerts, their deliveries and the position move in one transaction, so what was read is either
waiting here or read again. See docs/decisions/0017-notify-outbox.md.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from callmeter.errors import CannotWriteError, ConfigError, NewerSchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT_VERSION = 1
#: The topic keeps alerts for 30 days.
KEEP_US = 45 * 86_400_000_000
_BUSY_S = 30.0

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE positions (
    log TEXT NOT NULL, part INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (log, part)
) WITHOUT ROWID;
CREATE TABLE alerts (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, taken_us INTEGER NOT NULL, body BLOB
);
CREATE TABLE deliveries (
    alert INTEGER NOT NULL, target TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    due_us INTEGER NOT NULL, PRIMARY KEY (target, alert)
) WITHOUT ROWID;
CREATE INDEX due ON deliveries (target, due_us, alert);
CREATE INDEX taken ON alerts (taken_us);
"""


class Taken(NamedTuple):
    """An alert read from the log: its id, its bytes, the names of its targets."""

    id: str
    body: bytes
    targets: Sequence[str]


class Delivery(NamedTuple):
    """One alert waiting for one target. ``number`` names the alert in here."""

    number: int
    target: str
    body: bytes
    tries: int
    due_us: int


class Backlog(NamedTuple):
    """What waits for a target: how many, and since when the oldest does."""

    waiting: int
    since_us: int


class Outbox:
    """The file ``path``; safe from any thread, used by one process (its directory is locked).

    Whatever a method returns for is on disk. ``CannotWriteError``, ``ConfigError`` for a file that
    is no outbox, ``NewerSchemaError``.
    """

    def __init__(self, path: Path, now_us: int) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._errors():
            self._db = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(now_us)
            except BaseException:
                self._db.close()
                raise

    def _prepare(self, now_us: int) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "fullfsync=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        with self._transaction():
            if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(
                    "INSERT INTO meta VALUES ('format', ?), ('begun_us', ?)",
                    (FORMAT_VERSION, now_us),
                )
        try:
            meta = dict(self._db.execute("SELECT name, value FROM meta").fetchall())
            found, self.begun_us = meta["format"], meta["begun_us"]
        except (sqlite3.OperationalError, KeyError):
            raise ConfigError(f"{self._path} is no outbox of callmeter notify") from None
        if found > FORMAT_VERSION:
            raise NewerSchemaError(
                f"{self._path} has format {found}, this callmeter reads up to {FORMAT_VERSION}"
            )

    def positions(self, log_id: str) -> dict[int, int]:
        """The next offset to read, by partition."""
        with self._errors(), self._lock:
            return dict(
                self._db.execute(
                    "SELECT part, next FROM positions WHERE log = ?", (log_id,)
                ).fetchall()
            )

    def take(
        self, log_id: str, alerts: Iterable[Taken], positions: Mapping[int, int], now_us: int
    ) -> int:
        """Take alerts and move the positions, all or nothing; how many were not known yet."""
        new = 0
        with self._transaction():
            for alert in alerts:
                done = self._db.execute(
                    "INSERT INTO alerts (id, taken_us, body) VALUES (?, ?, ?) "
                    "ON CONFLICT DO NOTHING",
                    (alert.id, now_us, alert.body if alert.targets else None),
                )
                if not done.rowcount:
                    continue
                new += 1
                self._db.executemany(
                    "INSERT INTO deliveries (alert, target, due_us) VALUES (?, ?, ?)",
                    [(done.lastrowid, target, now_us) for target in alert.targets],
                )
            self._db.executemany(
                "INSERT INTO positions VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET next = max(next, excluded.next)",
                [(log_id, part, offset) for part, offset in positions.items()],
            )
        return new

    def due(self, target: str, limit: int = 1) -> list[Delivery]:
        """What waits for a target, that which is due first in front."""
        with self._errors(), self._lock:
            rows = self._db.execute(
                "SELECT d.alert, d.target, a.body, d.tries, d.due_us FROM deliveries d "
                "JOIN alerts a ON a.number = d.alert WHERE d.target = ? "
                "ORDER BY d.due_us, d.alert LIMIT ?",
                (target, limit),
            ).fetchall()
        return [Delivery(*row) for row in rows]

    def done(self, delivery: Delivery) -> None:
        """It was sent, or stands in the dead-letter file."""
        with self._transaction():
            key = (delivery.target, delivery.number)
            self._db.execute("DELETE FROM deliveries WHERE target = ? AND alert = ?", key)
            # The id alone is needed to know it again.
            self._db.execute(
                "UPDATE alerts SET body = NULL WHERE number = ? "
                "AND NOT EXISTS (SELECT 1 FROM deliveries WHERE alert = number)",
                (delivery.number,),
            )

    def later(self, delivery: Delivery, due_us: int) -> None:
        """It failed once more and is to be tried again at ``due_us``."""
        with self._transaction():
            self._db.execute(
                "UPDATE deliveries SET tries = tries + 1, due_us = ? "
                "WHERE target = ? AND alert = ?",
                (due_us, delivery.target, delivery.number),
            )

    def waiting(self) -> dict[str, int]:
        """How many deliveries wait, by target; of targets no longer there too."""
        with self._errors(), self._lock:
            return dict(
                self._db.execute(
                    "SELECT target, count(*) FROM deliveries GROUP BY target"
                ).fetchall()
            )

    def backlog(self) -> dict[str, Backlog]:
        """What waits, by target."""
        with self._errors(), self._lock:
            rows = self._db.execute(
                "SELECT d.target, count(*), min(a.taken_us) FROM deliveries d "
                "JOIN alerts a ON a.number = d.alert GROUP BY d.target"
            ).fetchall()
        return {target: Backlog(count, since_us) for target, count, since_us in rows}

    def forget(self, now_us: int) -> int:
        """Forget alerts that no topic shows any more and nobody waits for; how many."""
        with self._transaction():
            done = self._db.execute(
                "DELETE FROM alerts WHERE taken_us < ? "
                "AND NOT EXISTS (SELECT 1 FROM deliveries WHERE alert = number)",
                (now_us - KEEP_US,),
            )
        return done.rowcount

    def close(self) -> None:
        """Closing twice is harmless."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors(), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError):
                raise CannotWriteError(f"{self._path}: {exc}") from exc
            raise ConfigError(f"{self._path} is no outbox of callmeter notify: {exc}") from exc
