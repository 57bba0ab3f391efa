"""What the books say about loss: gaps in sequence numbers, counted drops, dead letters."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding, Period

_NIL = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Gap:
    """Envelopes ``first``..``last`` of a source that never arrived.

    ``events`` is how many events they held, by the cumulative counters of the headers around them.
    ``removed`` says that the source is older than the ledger: retention may have taken them.
    ``recorded_at`` is when the meter raised an alert of it, None while it has not; ``closed_at``
    when all of them had come after all: then nothing is missing any more.
    """

    source: str
    project: str
    service: str
    first: int
    last: int
    envelopes: int
    events: int
    removed: bool
    recorded_at: datetime | None = None
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One producer process by the headers of its envelopes.

    ``accepted`` and ``dropped`` are its own cumulative counters as last heard; ``stored`` is the
    number of events that arrived, refused ones included. ``closed`` means a clean close was seen.
    """

    source: str
    project: str
    service: str
    envelopes: int
    first_at: datetime
    last_at: datetime
    accepted: int
    stored: int
    missing: int
    dropped: Mapping[str, int]
    closed: bool


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused line, or a refused envelope's beginning."""

    at: datetime
    reason: str
    detail: str
    line: str
    whole_envelope: bool
    source: str
    seq: int
    index: int
    project: str
    service: str
    partition: int
    origin: int


# Each envelope of a source once: duplicates are marked in the ledger and left out here.
# Columns are read through ``e``, since a bare name in WHERE would mean the aggregate of that name.
_LEDGER = (
    "SELECT source, seq, any(e.project) AS project, any(e.service) AS service, max(e.n) AS n, "
    "max(e.accepted) AS accepted, any(e.dropped) AS dropped, max(e.last) AS last, "
    f"min(e.log_ts) AS at FROM envelopes AS e WHERE e.verdict != 'duplicate' "
    f"AND e.source != toUUID('{_NIL}')"
)
_BY_ENVELOPE = "GROUP BY source, seq"


def gaps(
    store: Store,
    *,
    project: str | None,
    source: str | None,
    since: datetime | None,
    until: datetime | None = None,
    closed: bool = False,
) -> list[Gap]:
    """Missing ranges of sequence numbers. See ``Queries.gaps``."""
    binding = Binding()
    where = ""
    if project is not None:
        where += f" AND e.project = {binding.add(project, 'String')}"
    if source is not None:
        where += f" AND e.source = toUUID({binding.add(_uuid(source), 'String')})"
    heard = Period.of(since, until).sql("log_ts", binding)
    if heard:
        where += f" AND e.source IN (SELECT source FROM envelopes WHERE {' AND '.join(heard)})"
    # Sources with a hole first, by counting; only their envelopes are put in order.
    broken = (
        "SELECT source FROM envelopes WHERE verdict != 'duplicate' "
        "GROUP BY source HAVING uniqExact(seq) != max(seq) + 1"
    )
    ledger = f"{_LEDGER}{where} AND e.source IN ({broken}) {_BY_ENVELOPE}"
    answer = store.query(
        "SELECT toString(source), project, service, previous + 1 AS first, seq - 1 AS last, "
        "accepted - n - accepted_before AS events, "
        "(SELECT min(log_ts) FROM envelopes) AS oldest FROM ("
        "SELECT source, project, service, toInt64(seq) AS seq, n, toInt64(accepted) AS accepted, "
        "lagInFrame(toInt64(seq), 1, -1) OVER w AS previous, "
        "lagInFrame(toInt64(accepted), 1, 0) OVER w AS accepted_before "
        f"FROM ({ledger}) WINDOW w AS (PARTITION BY source ORDER BY seq "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)) "
        "WHERE seq > previous + 1 ORDER BY source, first",
        binding.values,
    )
    told = _told(store, where, binding)
    found = []
    for name, of_project, service, first, last, events, oldest in answer.rows:
        removed = first == 0 and _born_before(name, oldest)
        # A gap may have closed in part since it was told of.
        since_when = [t.recorded_at for t in told if t.source == name and _meet(t, first, last)]
        found.append(
            Gap(
                name, of_project, service, first, last, last - first + 1, max(events, 0), removed,
                min((at for at in since_when if at is not None), default=None),
            )
        )  # fmt: skip
    if closed:
        found += [gap for gap in told if gap.closed_at is not None]
    return found


def _told(store: Store, where: str, binding: Binding) -> list[Gap]:
    """What alerts have told of, closed or not."""
    rows = store.query(
        "SELECT toString(g.source) AS name, any(e.project), any(e.service), first_seq, last_seq, "
        "recorded_at, closed_at FROM (SELECT source, first_seq, max(last_seq) AS last_seq, "
        "min(recorded_at) AS recorded_at, max(closed_at) AS closed_at FROM gaps "
        "GROUP BY log_id, source, first_seq) AS g "
        f"INNER JOIN (SELECT source, any(e.project) AS project, any(e.service) AS service "
        f"FROM envelopes AS e WHERE 1{where} GROUP BY source) AS e ON e.source = g.source "
        "GROUP BY name, first_seq, last_seq, recorded_at, closed_at ORDER BY name, first_seq",
        binding.values,
    ).rows
    return [
        Gap(name, project, service, first, last, last - first + 1, 0, False, recorded, closed)
        for name, project, service, first, last, recorded, closed in rows
    ]


def _meet(gap: Gap, first: int, last: int) -> bool:
    return gap.first <= last and first <= gap.last


def sources(store: Store, *, project: str | None, since: datetime | None) -> list[SourceRow]:
    """Producers by their headers. See ``Queries.sources``."""
    binding = Binding()
    where = f" AND e.project = {binding.add(project, 'String')}" if project is not None else ""
    having = Period.of(since, None).sql("last_at", binding)
    answer = store.query(
        "SELECT toString(source), argMax(project, seq), argMax(service, seq), count() AS number, "
        "min(at) AS first_at, max(at) AS last_at, max(accepted) AS accepted_, sum(n) AS stored, "
        "toInt64(accepted_) - toInt64(stored) AS missing, argMax(dropped, seq), max(last) "
        f"FROM ({_LEDGER}{where} {_BY_ENVELOPE}) "
        f"GROUP BY source {f'HAVING {having[0]}' if having else ''} ORDER BY last_at DESC",
        binding.values,
    )
    return [SourceRow(*row) for row in answer.rows]


def dead_letters(
    store: Store,
    *,
    since: datetime | None,
    until: datetime | None,
    project: str | None,
    reason: str | None,
    limit: int,
) -> list[DeadLetter]:
    """Refused lines and envelopes, newest first. See ``Queries.dead_letters``."""
    if not 1 <= limit <= 10_000:
        raise UsageError("the limit is 1 to 10000")
    binding = Binding()
    where = Period.of(since, until).sql("log_ts", binding)
    for column, wanted in (("project", project), ("reason", reason)):
        if wanted is not None:
            where.append(f"{column} = {binding.add(wanted, 'String')}")
    answer = store.query(
        "SELECT log_ts, reason, detail, line, whole_envelope, toString(source), seq, idx, project, "
        f"service, partition, origin FROM dead_letters WHERE {' AND '.join(where) or '1'} "
        "ORDER BY log_ts DESC, log_id, partition, origin DESC, idx "
        f"LIMIT {binding.add(limit, 'UInt32')}",
        binding.values,
    )
    return [DeadLetter(*row) for row in answer.rows]


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError as exc:
        raise UsageError("a source is a UUID") from exc


def _born_before(source: str, oldest: datetime) -> bool:
    """Whether a UUIDv7 source began before the ledger's oldest envelope (RFC 9562, 5.7)."""
    parsed = UUID(source)
    if parsed.version != 7:
        return False
    born = datetime.fromtimestamp((parsed.int >> 80) / 1000, UTC)
    return born < oldest
