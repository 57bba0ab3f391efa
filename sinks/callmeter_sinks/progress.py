"""How much of a source has arrived in the store: what a replay waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from callmeter_sinks.clickhouse.store import Store


class Arrived(NamedTuple):
    """One source in the ledger, duplicates left out."""

    envelopes: int  # different seqs, accepted or refused
    events: int  # accepted and refused lines
    next_missing: int  # the lowest seq that is not there
    closed: bool  # the envelope marked ``last`` is there

    @property
    def whole(self) -> bool:
        """Every envelope up to the clean close is there."""
        return self.closed and self.envelopes == self.next_missing


NOTHING = Arrived(0, 0, 0, False)

# Consecutive seqs from 0: the first place where the sorted seqs and their row numbers part.
_SQL = """
SELECT toString(source) AS source, count() AS envelopes, sum(lines) AS events,
  arrayFirstIndex((seq, place) -> seq != place, arraySort(groupArray(seq)) AS seqs,
                  range(length(seqs))) AS break,
  max(final) AS closed
FROM (
  SELECT source, seq, max(events + refused) AS lines, max(last) AS final
  FROM envelopes
  WHERE source IN {sources:Array(UUID)} AND verdict != 'duplicate'
  GROUP BY source, seq
)
GROUP BY source
"""


def arrived(store: Store, sources: Iterable[str]) -> Mapping[str, Arrived]:
    """The state of each source; one that the store has never seen is ``NOTHING``."""
    wanted = list(sources)
    found = dict.fromkeys(wanted, NOTHING)
    if wanted:
        for source, envelopes, events, broken_at, closed in store.query(
            _SQL, {"sources": wanted}
        ).rows:
            missing = broken_at - 1 if broken_at else envelopes
            found[source] = Arrived(envelopes, events, missing, bool(closed))
    return found
