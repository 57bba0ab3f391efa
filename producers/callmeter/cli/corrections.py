"""What another price book says of stored calls, as correction events sent in runs.

A run is a source of its own, ``uuid8("repricing", project, run)``. Its envelope 0 is a fence: when
the store has it, it also has everything that an earlier run of that number left in the log, for one
source is one partition, in order. If the fence was accepted the number was free; if it was a
duplicate, an earlier run was cut short, and the next number is tried. Only then are corrections
computed from what is stored, so a run that is repeated at any moment counts nothing twice
(docs/decisions/0011-repricing-by-corrections.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from callmeter._version import __version__
from callmeter.ids import uuid8
from callmeter.money import format_usd, to_pico
from callmeter.schema.envelope import MAX_BYTES, Header, encode
from callmeter.schema.events import Annotation, CallEnd, Cost
from callmeter.transports.protocol import Sealed

if TYPE_CHECKING:
    from callmeter.pricing import Pricer
    from callmeter_sinks.queries.repricing import PricedCall

#: Whether every amount that the ledger has of a source is in its table.
COSTS_IN = """SELECT sum(costs) = (SELECT count() FROM costs WHERE (log_id, partition, origin) IN
  (SELECT log_id, partition, origin FROM envelopes
   WHERE source = {source:UUID} AND verdict = 'accepted'))
FROM envelopes WHERE source = {source:UUID} AND verdict = 'accepted'"""
_EVENTS = 400
#: Room for a header with texts at their limits.
_HEADER_ROOM = 8 * 1024
_NO_TRACE = "0" * 31 + "1"
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Change:
    """Figures of one provider and model, in pico-USD. ``unpriced`` are calls still without one."""

    calls: int = 0
    changed: int = 0
    newly_priced: int = 0
    unpriced: int = 0
    before_pico: int = 0
    after_pico: int = 0


def corrections(
    calls: Iterable[PricedCall],
    pricer: Pricer,
    changes: dict[tuple[str, str], Change],
    now_us: int,
) -> Iterator[bytes]:
    """One ``cost`` line for each call that costs something else by ``pricer``; adds to ``changes``.

    A call that the new book cannot price keeps what it costs: unknown is not 0.
    """
    for call in calls:
        change = changes.setdefault((call.provider, call.model), Change())
        change.calls += 1
        old = None if call.cost_usd is None else to_pico(call.cost_usd)
        priced = _price(call, pricer)
        new = old if priced is None else priced[0]
        change.before_pico += old or 0
        change.after_pico += new or 0
        if new is None:
            change.unpriced += 1
        if priced is None or new is None or new == old:
            continue
        change.changed += 1
        change.newly_priced += old is None
        yield _encode(_correction(call, old, new, priced[1], now_us))


def _price(call: PricedCall, pricer: Pricer) -> tuple[int, str] | None:
    """As the meter prices: the model asked for, else the one that answered, with its tier."""
    from callmeter_processors.worth import settle

    event = CallEnd(
        ts_us=call.started_us,
        call_id=call.call_id,
        trace_id=_NO_TRACE,
        started_us=call.started_us,
        operation=call.operation,
        status=call.status,
        provider=call.provider,
        model=call.model,
        response_model=call.response_model,
        service_tier=call.service_tier,
        usage=dict(call.usage),
    )
    pico = settle(event, pricer)
    return None if pico is None else (pico, event.price_version)


def _correction(
    call: PricedCall, old_pico: int | None, new_pico: int, version: str, now_us: int
) -> Cost:
    was = "unpriced" if old_pico is None else f"{format_usd(old_pico)} USD"
    return Cost(
        ts_us=max(now_us, call.started_us),
        started_us=call.started_us,
        cost_pico=str(new_pico - (old_pico or 0)),
        source="repricing",
        call_id=call.call_id,
        operation=call.operation,
        provider=call.provider,
        model=call.model,
        phase=call.phase,
        program=call.program,
        user=call.user,
        session=call.session,
        status=call.status,
        service=call.service,
        environment=call.environment,
        tags=dict(call.tags),
        price_version=version,
        note=f"{was}, now {format_usd(new_pico)} USD",
    )


def run_source(project: str, run: int) -> str:
    """The source of a project's n-th repricing, from 0."""
    return uuid8(b"repricing", project.encode(), b"%d" % run)


class Run:
    """One run's envelopes: the fence, then the corrections. The last one says so.

    The fence carries an annotation that says what is being done, for the project's audit.
    """

    def __init__(self, project: str, run: int) -> None:
        self.number = run
        self.source = run_source(project, run)
        self._project = project
        self._seq = 0
        self._accepted = 0

    def fence(self, text: str, now_us: int) -> Sealed:
        """Envelope 0; ``now_us`` is its ``sent_us``, by which the ledger knows it again."""
        return self._seal([_encode(Annotation(ts_us=now_us, text=text))], now_us, last=False)

    def envelopes(self, lines: Iterable[bytes], now_us: int) -> Iterator[Sealed]:
        """The envelopes after the fence, of at most 256 KiB; without lines an empty close."""
        group: list[bytes] = []
        size = _HEADER_ROOM
        for line in lines:
            if group and (len(group) >= _EVENTS or size + len(line) + 1 > MAX_BYTES):
                yield self._seal(group, now_us, last=False)
                group, size = [], _HEADER_ROOM
            group.append(line)
            size += len(line) + 1
        yield self._seal(group, now_us, last=True)

    def _seal(self, lines: list[bytes], now_us: int, *, last: bool) -> Sealed:
        self._accepted += len(lines)
        header = Header(
            source=self.source,
            seq=self._seq,
            n=len(lines),
            sent_us=now_us,
            project=self._project,
            sdk=f"callmeter-reprice/{__version__}",
            accepted=self._accepted,
            last=last,
        )
        self._seq += 1
        return Sealed(self.source, header.seq, header.n, encode(header, lines))
