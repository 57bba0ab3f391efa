"""The sink's books in ClickHouse: claims, intents, quarantine, losses.

On a cluster every line is written with a quorum and read sequentially consistent, so whoever claims
a partition sees every intent that was written before its claim.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.ranges import Range

_QUORUM = {"insert_quorum": "auto", "insert_quorum_parallel": "0"}
_SEQUENTIAL = {"select_sequential_consistency": "1"}

_NEWEST_CLAIM = """
SELECT generation, toString(owner) FROM sink_claims
WHERE sink = {sink:String} AND topic = {topic:String} AND partition = {partition:UInt16}
ORDER BY generation DESC, owner DESC LIMIT 1
"""
_NEWEST_INTENT = """
SELECT first, last, origin_first, origin_next, records, crc32 FROM sink_intents
WHERE sink = {sink:String} AND topic = {topic:String} AND partition = {partition:UInt16}
  AND log_id = {log_id:UUID}
ORDER BY generation DESC, owner DESC, last DESC, records LIMIT 1
"""
_QUARANTINED = """
SELECT DISTINCT offset FROM sink_quarantine
WHERE sink = {sink:String} AND topic = {topic:String} AND partition = {partition:UInt16}
  AND log_id = {log_id:UUID}
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write a partition. Two claims of one generation are told apart by owner."""

    generation: int
    owner: str


@dataclass(frozen=True, slots=True)
class Intent:
    """The newest range that was about to be inserted; without ``records`` a mark of rest.

    The mark says that everything up to ``last`` is in the store; its ``first`` lies behind that.
    """

    first: int
    last: int
    origin_first: int
    origin_next: int
    records: int
    crc32: int


class Books:
    """The books of one sink for one topic. Every call goes to the store and raises its errors.

    Calls may be repeated after an error: a claim, intent, quarantined record or loss that stands
    twice means the same as once.
    """

    def __init__(self, store: Store, sink: str, topic: str) -> None:
        self.sink = sink
        self.topic = topic
        self._store = store
        self._writing = _QUORUM if store.replicated else {}
        self._reading = _SEQUENTIAL if store.replicated else {}

    def newest_claim(self, partition: int) -> Claim | None:
        rows = self._rows(_NEWEST_CLAIM, partition=partition)
        return Claim(int(rows[0][0]), str(rows[0][1])) if rows else None

    def write_claim(self, partition: int, claim: Claim) -> None:
        self._write(
            "sink_claims",
            partition=partition,
            generation=claim.generation,
            owner=claim.owner,
            host=socket.gethostname(),
            pid=os.getpid(),
        )

    def newest_intent(self, partition: int, log_id: str) -> Intent | None:
        rows = self._rows(_NEWEST_INTENT, partition=partition, log_id=log_id)
        return Intent(*map(int, rows[0])) if rows else None

    def write_intent(self, partition: int, claim: Claim, rng: Range) -> None:
        self._write(
            "sink_intents",
            log_id=rng.log_id,
            partition=partition,
            generation=claim.generation,
            owner=claim.owner,
            first=rng.first,
            last=rng.last,
            origin_first=rng.origin_first,
            origin_next=rng.origin_next,
            records=len(rng.pieces),
            events=rng.events,
            crc32=rng.crc32(),
        )

    def write_rest(
        self, partition: int, claim: Claim, log_id: str, last: int, origin_next: int | None
    ) -> None:
        """Note that every intent of the claim's owner up to ``last`` was carried out."""
        origin = -1 if origin_next is None else origin_next
        self._write(
            "sink_intents",
            log_id=log_id,
            partition=partition,
            generation=claim.generation,
            owner=claim.owner,
            first=last + 1,
            last=last,
            origin_first=origin,
            origin_next=origin,
            records=0,
            events=0,
            crc32=0,
        )

    def quarantined(self, partition: int, log_id: str) -> set[int]:
        """Offsets that every rebuild leaves out."""
        rows = self._rows(_QUARANTINED, partition=partition, log_id=log_id)
        return {int(row[0]) for row in rows}

    def quarantine(
        self,
        partition: int,
        log_id: str,
        offset: int,
        *,
        origin: int,
        code: int,
        reason: str,
        value: bytes,
    ) -> None:
        """Set a record aside. ``origin`` -1: it speaks of none."""
        self._write(
            "sink_quarantine",
            log_id=log_id,
            partition=partition,
            offset=offset,
            origin=origin,
            code=code,
            reason=reason,
            record=value.decode("utf-8", "replace"),
        )

    def lose(
        self,
        partition: int,
        log_id: str,
        origins: tuple[int, int],
        offsets: tuple[int, int],
        *,
        reason: str,
        detail: str,
    ) -> None:
        """Record that origins (first, last) never reached the store, as far as is known."""
        self._write(
            "sink_losses",
            log_id=log_id,
            partition=partition,
            origin_first=origins[0],
            origin_last=origins[1],
            first=offsets[0],
            last=offsets[1],
            reason=reason,
            detail=detail,
        )

    def _rows(self, sql: str, **params: Any) -> list[tuple[Any, ...]]:
        bound: Mapping[str, Any] = {"sink": self.sink, "topic": self.topic, **params}
        return self._store.query(sql, bound, self._reading).rows

    def _write(self, table: str, **columns: Any) -> None:
        row = {"sink": self.sink, "topic": self.topic, **columns}
        self._store.insert_block(
            table, list(row), orjson.dumps(row), fmt="JSONEachRow", settings=self._writing
        )
