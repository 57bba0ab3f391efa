"""A step small enough to check by hand: it counts and sums the numbers in its records.

Each record's value is lines: a header (ignored), then one integer a line. State is one row per key
of the source records; each checkpoint's output is the sum since the last one, to the same
partition, and the running totals per key, by key. Whoever adds up the outputs must find every
number exactly once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping

import orjson

from callmeter.errors import NewerSchemaError
from callmeter.log.record import LogRecord, NewRecord
from callmeter_processors.step import Checkpoint, Output

POISON = b"poison"
#: The newest format of rows that it reads, and the one it writes.
_FORMAT = 1


class ToyStep:
    """``Step`` that counts records and sums numbers per key; a record ``poison`` is its bug."""

    def __init__(self, log_id: str, partition: int) -> None:
        self.log_id = log_id
        self.partition = partition
        self.totals: dict[bytes, list[int]] = {}
        self.ticks: list[int] = []
        self._changed: set[bytes] = set()
        self._forgotten: set[bytes] = set()
        self._delta = [0, 0, -1, -1]
        self._events = 0

    def restore(self, rows: Mapping[bytes, bytes]) -> None:
        for key, value in rows.items():
            row = orjson.loads(value)
            if row["v"] > _FORMAT:
                raise NewerSchemaError(f"row {key!r} has format {row['v']}")
            self.totals[key] = [row["records"], row["sum"]]

    def process(self, record: LogRecord) -> None:
        value = record.value or b""
        if value == POISON:
            raise RuntimeError("the step has a bug")
        key = record.key or b""
        numbers = [int(line) for line in value.split(b"\n")[1:] if line]
        total = self.totals.setdefault(key, [0, 0])
        self._events += len(numbers)
        total[0] += 1
        total[1] += sum(numbers)
        self._forgotten.discard(key)
        self._changed.add(key)
        if numbers == [0]:  # a record that says: forget this key
            del self.totals[key]
            self._changed.discard(key)
            self._forgotten.add(key)
        delta = self._delta
        delta[0] += 1
        delta[1] += sum(numbers)
        delta[2] = record.offset if delta[2] < 0 else delta[2]
        delta[3] = record.offset

    def tick(self, now_us: int) -> None:
        self.ticks.append(now_us)

    def checkpoint(self) -> Checkpoint:
        rows: dict[bytes, bytes | None] = dict.fromkeys(self._forgotten)
        outputs: list[Output] = []
        for key in sorted(self._changed):
            records, total = self.totals[key]
            rows[key] = orjson.dumps({"v": _FORMAT, "records": records, "sum": total})
            outputs.append(Output("live", key, rows[key] or b""))
        if self._delta[0]:
            n, total, first, last = self._delta
            value = {"log": self.log_id, "n": n, "sum": total, "first": first, "last": last}
            outputs.append(Output("metered", b"delta", orjson.dumps(value), self.partition))
        counts = {("events", ""): self._events}
        self._changed, self._forgotten, self._delta = set(), set(), [0, 0, -1, -1]
        self._events = 0
        return Checkpoint(rows, outputs, counts)


def toy_records(
    count: int, *, seed: int = 1, keys: int = 5, numbers: int = 8, first: int = 0
) -> list[NewRecord]:
    """``count`` seeded records for ``events``, placed by their keys."""
    rng = random.Random(f"{seed}:{first}")
    records = []
    for i in range(first, first + count):
        lines = [b'{"v":1}', *(b"%d" % rng.randrange(1, 10**12) for _ in range(numbers)), b""]
        records.append(NewRecord("events", b"source-%d" % (i % keys), b"\n".join(lines)))
    return records


def toy_total(records: Iterable[NewRecord | LogRecord]) -> tuple[int, int]:
    """What the deltas of these records must add up to: (records, sum of their numbers)."""
    n = total = 0
    for record in records:
        n += 1
        total += sum(int(line) for line in (record.value or b"").split(b"\n")[1:] if line)
    return n, total


def delta_total(values: Iterable[bytes]) -> tuple[int, int]:
    """The deltas added up; ``AssertionError`` if their offset ranges overlap or leave a hole."""
    n = total = 0
    due = 0
    for value in values:
        delta = orjson.loads(value)
        assert delta["first"] == due, f"a delta begins at {delta['first']}, {due} was due"
        assert delta["last"] - delta["first"] + 1 == delta["n"]
        due = delta["last"] + 1
        n += delta["n"]
        total += delta["sum"]
    return n, total


def key_totals(rows: Mapping[bytes, bytes]) -> Counter[bytes]:
    """Sum per key, from state rows without the position."""
    return Counter({k: orjson.loads(v)["sum"] for k, v in rows.items() if k != b"position"})
