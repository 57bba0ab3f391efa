"""How often to write: sooner under load, later when there is little or when writing is slow.

A batch is gathered for ``gather_s``, or until it is full, then written in one transaction for each
of its partitions. Then comes a rest, in which records wait in a bounded buffer:

- none after a full batch, nor while half of one waits: there is more, and a large batch costs the
  least per record;
- so long that writing takes at most a third of the time, if transactions are slow;
- so long that a trickle is written every ``idle_s``.

The first record after a silence waits for ``gather_s`` only, whatever was before.
"""

from __future__ import annotations

#: Of the newest transaction in the average; one slow one is no trend.
_NEWEST = 0.3
#: A rest is so many times as long as writing takes. With 1 the latency of a busy machine was worse,
#: and that of an idle one no better (docs/decisions/0018).
_REST = 2.0
#: Fewer records than this in a batch are a trickle.
_TRICKLE = 10


class Pace:
    """Used from one task. Times in seconds; ``full`` in records; no rest is above ``most_s``."""

    def __init__(
        self, *, gather_s: float, full: int, idle_s: float = 0.25, most_s: float = 1.0
    ) -> None:
        self.gather_s = gather_s
        self._full = full
        self._idle_s = idle_s
        self._most_s = most_s
        self._took_s = 0.0

    def rest_s(self, records: int, took_s: float, behind: int = 0) -> float:
        """How long to rest after a batch of ``records`` that took ``took_s`` to be written.

        ``behind`` records are known to wait.
        """
        self._took_s += _NEWEST * (took_s - self._took_s)
        if records >= self._full or behind >= self._full // 2:
            return 0.0
        least_s = self._idle_s if records < _TRICKLE else 0.0
        wanted_s = max(_REST * self._took_s, least_s) - self.gather_s
        return min(max(wanted_s, 0.0), self._most_s)
