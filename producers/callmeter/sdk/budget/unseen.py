"""Local spend that a shared budget's status does not include yet.

    ended ──► under way ──delivered──► acknowledged ──included, or 5 s later──► gone

Pure and not locked; its owner is. What is delivered together is kept together, so there are as many
entries as envelopes on their way, whatever they hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

#: An acknowledged spend that no status of a living stream has named for so long is none of this
#: budget's: the meter priced it differently or saw it out of scope.
EXPIRY_S = 5.0
#: Calls whose delivery is waited for. Beyond it the oldest count until their window ends.
MAX_UNDER_WAY = 200_000


class _Spend(NamedTuple):
    entity: str
    hour: int
    pico: int
    tokens: int


class _Acknowledged(NamedTuple):
    partition: int
    offset: int
    at_s: float
    spends: list[_Spend]


class Unseen:
    """Sums by entity and hour of what the status lacks, and where each part of it lies."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Spend] = {}
        self._acknowledged: dict[str, deque[_Acknowledged]] = {}
        self._sums: dict[str, dict[int, list[int]]] = {}
        self._included: dict[str, Mapping[int, int]] = {}

    def ended(self, call_id: str, entity: str, hour: int, pico: int, tokens: int) -> None:
        """A call of this process has ended; ``hour`` is that of its start."""
        spend = _Spend(entity, hour, pico, tokens)
        if len(self._under_way) >= MAX_UNDER_WAY:
            del self._under_way[next(iter(self._under_way))]
        self._under_way[call_id] = spend
        self._add(spend, 1)

    def delivered(self, call_ids: Iterable[str], partition: int, offset: int, now_s: float) -> None:
        """The log has these calls at ``offset``. Ids of calls that are not known are passed by."""
        by_entity: dict[str, list[_Spend]] = {}
        for call_id in call_ids:
            spend = self._under_way.pop(call_id, None)
            if spend is not None:
                by_entity.setdefault(spend.entity, []).append(spend)
        for entity, spends in by_entity.items():
            if offset <= self._included.get(entity, {}).get(partition, -1):
                self._forget(spends)
            else:
                waiting = self._acknowledged.setdefault(entity, deque())
                waiting.append(_Acknowledged(partition, offset, now_s, spends))

    def included(self, entity: str, offsets: Mapping[int, int]) -> None:
        """A status of the entity includes these offsets, by partition."""
        self._included[entity] = offsets
        waiting = self._acknowledged.get(entity)
        if not waiting:
            return
        left: deque[_Acknowledged] = deque()
        for each in waiting:
            if each.offset <= offsets.get(each.partition, -1):
                self._forget(each.spends)
            else:
                left.append(each)
        self._acknowledged[entity] = left

    def begin_anew(self) -> None:
        """Another stream, maybe of another log: what statuses included before says nothing."""
        self._included = {}

    def expire(self, entity: str, now_s: float) -> None:
        """Forget what was acknowledged long ago. Only while the status is fresh."""
        waiting = self._acknowledged.get(entity)
        while waiting and now_s - waiting[0].at_s >= EXPIRY_S:
            self._forget(waiting.popleft().spends)

    def sum(self, entity: str, first_hour: int, end_hour: int | None) -> tuple[int, int]:
        """(pico-USD, tokens) of calls that began in these hours; no end is for ever."""
        pico = tokens = 0
        for hour, sums in self._sums.get(entity, {}).items():
            if hour >= first_hour and (end_hour is None or hour < end_hour):
                pico += sums[0]
                tokens += sums[1]
        return pico, tokens

    def forget_before(self, hour: int) -> None:
        """Windows that began later are the only ones asked for from now on."""
        for entity, hours in list(self._sums.items()):
            for old in [each for each in hours if each < hour]:
                del hours[old]
            if not hours:
                del self._sums[entity]
        self._under_way = {i: s for i, s in self._under_way.items() if s.hour >= hour}

    def __len__(self) -> int:
        waiting = (each for entries in self._acknowledged.values() for each in entries)
        return len(self._under_way) + sum(len(each.spends) for each in waiting)

    def _forget(self, spends: Iterable[_Spend]) -> None:
        for spend in spends:
            self._add(spend, -1)

    def _add(self, spend: _Spend, sign: int) -> None:
        hours = self._sums.setdefault(spend.entity, {})
        if sign < 0 and spend.hour not in hours:
            return  # its window is over
        sums = hours.setdefault(spend.hour, [0, 0, 0])
        sums[0] += sign * spend.pico
        sums[1] += sign * spend.tokens
        sums[2] += sign
        if not sums[2]:
            del hours[spend.hour]
            if not hours:
                del self._sums[spend.entity]
