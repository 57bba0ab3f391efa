"""The differences of one bill on one project as events: a source known by the file's digest.

A run is ``uuid8("bill", digest, project, number)``: see ``costruns``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from callmeter.cli.costruns import CostRun
from callmeter.ids import uuid8
from callmeter.money import format_usd
from callmeter.schema.events import Cost

if TYPE_CHECKING:
    from callmeter_sinks.bill import BillRow

_encode = msgspec.json.Encoder().encode


def bill_source(digest: str, project: str, number: int) -> str:
    """The source of the n-th attempt to book a file on a project, from 0."""
    return uuid8(b"bill", digest.encode(), project.encode(), b"%d" % number)


class BillRun(CostRun):
    """One attempt to book a bill's differences on a project."""

    def __init__(self, digest: str, project: str, number: int) -> None:
        super().__init__(bill_source(digest, project, number), project, "bill")
        self._digest = digest

    def lines(self, rows: Sequence[BillRow], now_us: int) -> list[bytes]:
        """One ``cost`` event a difference, at noon of its day (UTC), or now where noon is to come:
        the meter refuses what lies ahead of the log.
        """
        return [_encode(self._cost(row, now_us)) for row in rows]

    def _cost(self, row: BillRow, now_us: int) -> Cost:
        noon = datetime(row.day.year, row.day.month, row.day.day, 12, tzinfo=UTC)
        return Cost(
            ts_us=now_us,
            started_us=min(int(noon.timestamp()) * 1_000_000, now_us),
            cost_pico=str(row.difference_pico),
            source="bill",
            provider=row.provider,
            model=row.model,
            note=f"bill {self._digest[:12]}: billed {format_usd(row.billed_pico)} USD, "
            f"metered {format_usd(row.metered_pico)}",
        )
