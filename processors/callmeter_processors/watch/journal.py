"""State rows for very many small values: a journal, and chunks that let it be forgotten.

A record costs about 20 µs whatever it holds, so one row for each of thousands of entities that
change at a checkpoint is out of the question (docs/decisions/0012). A checkpoint writes what
changed into one journal row. Beside it, values live in CHUNKS chunks by the hash of their key, and
each checkpoint rewrites as many chunks in turn as make up the bytes that it journaled. Once every
chunk has had its turn since a journal row, that row holds nothing new and is deleted: the journal
never outgrows the chunks by much, and what is written is at most about twice what changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from zlib import crc32

import msgspec
from msgspec import Raw, Struct

from callmeter_processors.rowformat import readable

ROW_VERSION = 1
CHUNKS = 64
#: A row is split above this size: brokers refuse records above a megabyte by default.
_ROW_BYTES = 512 * 1024
_JOURNAL = b"j:"
_CHUNK = b"c:"


class JournalRow(Struct):
    """Part of a journal entry or of a chunk, as of checkpoint ``seq``. None deletes a key."""

    v: int
    log: str
    seq: int
    rows: dict[str, Raw]


_decoder = msgspec.json.Decoder(JournalRow)
_encoder = msgspec.json.Encoder()
_NULL = b"null"


class Journal:
    """The values of one partition, as JSON, by key. Used from one thread."""

    def __init__(self, log_id: str) -> None:
        self._log_id = log_id
        self._seq = 0
        self._chunks: list[dict[str, bytes]] = [{} for _ in range(CHUNKS)]
        self._parts = [0] * CHUNKS
        self._dirty: set[int] = set()
        self._cursor = 0
        self._turns = 0
        #: Journal rows that are still needed: (turns when written, names), oldest first.
        self._journal: deque[tuple[int, list[bytes]]] = deque()

    def restore(self, rows: Mapping[bytes, bytes]) -> Iterator[tuple[str, bytes]]:
        """Take over the partition's rows; every key's newest value. ``NewerSchemaError``."""
        chunk_seq = [-1] * CHUNKS
        entries: list[tuple[int, bytes, JournalRow]] = []
        for name, value in rows.items():
            if not name.startswith((_JOURNAL, _CHUNK)):
                continue
            row = self._decode(name, value)
            if row is None:
                continue
            self._seq = max(self._seq, row.seq)
            if name.startswith(_JOURNAL):
                entries.append((row.seq, name, row))
                continue
            number, part = (int(text) for text in name[len(_CHUNK) :].split(b":"))
            chunk_seq[number] = row.seq
            self._parts[number] = max(self._parts[number], part + 1)
            self._chunks[number].update((key, bytes(raw)) for key, raw in row.rows.items())
        for seq, name, row in sorted(entries, key=lambda entry: entry[:2]):
            self._journal.append((0, [name]))
            for key, raw in row.rows.items():
                number = _chunk_of(key)
                if seq > chunk_seq[number]:
                    self._put(number, key, bytes(raw))
        for chunk in self._chunks:
            yield from chunk.items()

    def _decode(self, name: bytes, value: bytes) -> JournalRow | None:
        if not readable(name, value, self._log_id, ROW_VERSION):
            return None
        return _decoder.decode(value)

    @property
    def rows(self) -> int:
        """State rows there are now."""
        return sum(self._parts) + sum(len(names) for _, names in self._journal)

    def write(self, changes: Mapping[str, bytes | None]) -> dict[bytes, bytes | None]:
        """The rows that make ``changes`` durable. None deletes a key. No changes, no rows."""
        if not changes:
            return {}
        self._seq += 1
        rows: dict[bytes, bytes | None] = {}
        values = {key: _NULL if value is None else value for key, value in changes.items()}
        for key, value in values.items():
            self._put(_chunk_of(key), key, value)
        names = []
        written = 0
        for part, row in enumerate(self._encode(values.items())):
            name = _JOURNAL + b"%016x:%04x" % (self._seq, part)
            rows[name] = row
            names.append(name)
            written += len(row)
        self._journal.append((self._turns, names))
        self._rewrite(written, rows)
        # The newest entry stays: it alone says which checkpoint was the last.
        while len(self._journal) > 1 and self._turns - self._journal[0][0] >= CHUNKS:
            rows.update(dict.fromkeys(self._journal.popleft()[1]))
        return rows

    def _put(self, number: int, key: str, value: bytes) -> None:
        if value == _NULL:
            self._chunks[number].pop(key, None)
        else:
            self._chunks[number][key] = value
        self._dirty.add(number)

    def _rewrite(self, least_bytes: int, rows: dict[bytes, bytes | None]) -> None:
        """Give chunks their turn until so many bytes were rewritten, or all had one."""
        written = 0
        for _ in range(CHUNKS):
            number = self._cursor
            self._cursor = (number + 1) % CHUNKS
            self._turns += 1
            if number not in self._dirty:
                continue
            self._dirty.discard(number)
            parts = 0
            for row in self._encode(self._chunks[number].items()):
                rows[_CHUNK + b"%d:%d" % (number, parts)] = row
                written += len(row)
                parts += 1
            for part in range(parts, self._parts[number]):
                rows[_CHUNK + b"%d:%d" % (number, part)] = None
            self._parts[number] = parts
            if written >= least_bytes:
                break

    def _encode(self, items: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
        part: dict[str, Raw] = {}
        size = 0
        for key, value in items:
            if size and size + len(value) > _ROW_BYTES:
                yield self._row(part)
                part, size = {}, 0
            part[key] = Raw(value)
            size += len(key) + len(value)
        if part:
            yield self._row(part)

    def _row(self, part: dict[str, Raw]) -> bytes:
        return _encoder.encode(JournalRow(ROW_VERSION, self._log_id, self._seq, part))


def _chunk_of(key: str) -> int:
    return crc32(key.encode()) % CHUNKS
