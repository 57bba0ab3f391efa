"""The differences of one bill on one project as events: a source known by the file's digest.

A run is ``uuid8("bill", digest, project, number)``: an envelope 0 that is its fence, then the
amounts, as a repricing is written (docs/decisions/0011-repricing-by-corrections.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from callmeter._version import __version__
from callmeter.ids import uuid8
from callmeter.money import format_usd
from callmeter.schema.envelope import Header, encode
from callmeter.schema.events import Annotation, Cost
from callmeter.transports.protocol import Sealed

if TYPE_CHECKING:
    from callmeter_sinks.bill import BillRow

_EVENTS = 200
_encode = msgspec.json.Encoder().encode


def bill_source(digest: str, project: str, number: int) -> str:
    """The source of the n-th attempt to book a file on a project, from 0."""
    return uuid8(b"bill", digest.encode(), project.encode(), b"%d" % number)


class BillRun:
    """One attempt's envelopes. The last one says that it is whole."""

    def __init__(self, digest: str, project: str, number: int) -> None:
        self.source = bill_source(digest, project, number)
        self._digest = digest
        self._project = project
        self._seq = 0
        self._accepted = 0

    def fence(self, text: str, now_us: int) -> Sealed:
        """Envelope 0; the ledger knows it again by ``now_us``, its ``sent_us``."""
        return self._seal([_encode(Annotation(ts_us=now_us, text=text))], now_us, last=False)

    def lines(self, rows: Sequence[BillRow], now_us: int) -> list[bytes]:
        """One ``cost`` event a difference, at the middle of its day."""
        return [_encode(self._cost(row, now_us)) for row in rows]

    def envelopes(self, lines: Sequence[bytes], now_us: int) -> Iterator[Sealed]:
        """Those after the fence; without lines one that is empty."""
        for at in range(0, len(lines) or 1, _EVENTS):
            some = list(lines[at : at + _EVENTS])
            yield self._seal(some, now_us, last=at + _EVENTS >= len(lines))

    def _cost(self, row: BillRow, now_us: int) -> Cost:
        noon = datetime(row.day.year, row.day.month, row.day.day, 12, tzinfo=UTC)
        noon_us = int(noon.timestamp()) * 1_000_000
        return Cost(
            ts_us=max(now_us, noon_us),
            started_us=noon_us,
            cost_pico=str(row.difference_pico),
            source="bill",
            provider=row.provider,
            model=row.model,
            note=f"bill {self._digest[:12]}: billed {format_usd(row.billed_pico)} USD, "
            f"metered {format_usd(row.metered_pico)}",
        )

    def _seal(self, lines: list[bytes], now_us: int, *, last: bool) -> Sealed:
        self._accepted += len(lines)
        header = Header(
            source=self.source,
            seq=self._seq,
            n=len(lines),
            sent_us=now_us,
            project=self._project,
            sdk=f"callmeter-bill/{__version__}",
            accepted=self._accepted,
            last=last,
        )
        self._seq += 1
        return Sealed(self.source, header.seq, header.n, encode(header, lines))
