"""What a checkpoint adds to budgets and projects: the lines of its ``spend`` records.

Sums of dimensions are taken from the deltas that the fold makes anyway; calls are looked at one by
one only where a budget asks for their user, session or a tag.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from callmeter.schema.events import MODEL_OPERATIONS, CallEnd, Cost
from callmeter.schema.histogram import count_buckets
from callmeter.schema.metered import Delta
from callmeter.schema.spend import (
    SPEND_KEY,
    Live,
    Spend,
    SpendHeader,
    spend_partition,
    spend_place,
)
from callmeter.schema.topics import SPEND
from callmeter_processors.matching import Dimensions, Rule, Rules, getter
from callmeter_processors.step import Output

_HOUR_MINUTES = 60
_encoder = msgspec.json.Encoder()

#: A rule, its entity, the hour.
_Entity = tuple[Rule, str, int]
#: Project, minute, provider, model.
_Cell = tuple[str, int, str, str]


class Sums:
    """Seven counts, and latencies as a histogram.

    pico-USD, input tokens, output tokens, calls, failures, unpriced, usage unknown.
    """

    __slots__ = ("counts", "hist")

    def __init__(self) -> None:
        self.counts = [0, 0, 0, 0, 0, 0, 0]
        self.hist: dict[int, int] = {}

    def add(self, other: Sums) -> None:
        """Add another's."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        for index, count in other.hist.items():
            self.hist[index] = self.hist.get(index, 0) + count


class FineSums:
    """Calls of one hour by the values of some fine fields, for the rules that share them.

    ``gather`` maps what ``of`` reads from a call to six counts: pico-USD, tokens, calls, failures,
    unpriced, usage unknown. The fold adds to ``samples``, one call after the other, what ``of``
    reads, pico-USD and tokens: users are many, and looking each up amid the fold would put the
    fold's own rows out of the processor's cache.
    """

    __slots__ = ("_sums", "dims", "fields", "hour", "latencies", "of", "rules", "samples")

    def __init__(
        self, dims: Dimensions, hour: int, fields: tuple[str, ...], rules: tuple[Rule, ...]
    ) -> None:
        self.dims = dims
        self.hour = hour
        self.fields = fields
        self.rules = rules
        self.of = getter(fields)
        self.samples: list[Any] = []
        self._sums: dict[Any, list[int]] = {}
        wanted = any(rule.latency for rule in rules)
        self.latencies: dict[Any, list[int]] | None = {} if wanted else None

    def add_odd(self, call: CallEnd, pico: int | None, *, failed: bool) -> None:
        """Add a call that failed, or whose usage or price is not known (None)."""
        usage = call.usage
        counts = self._counts(self.of(call))
        counts[0] += pico or 0
        counts[2] += 1
        counts[3] += failed
        if usage is UNSET:
            counts[5] += 1
        else:
            counts[1] += usage.get("input", 0) + usage.get("output", 0)
            counts[4] += pico is None

    def add_cost(self, cost: Cost, pico: int) -> None:
        """Add money apart from its call."""
        self._counts(self.of(cost))[0] += pico

    def gather(self) -> dict[Any, list[int]]:
        """The counts of all that was added."""
        samples, self.samples = self.samples, []
        sums = self._sums
        for key, pico, tokens in zip(samples[::3], samples[1::3], samples[2::3], strict=True):
            counts = sums.get(key)
            if counts is None:
                sums[key] = [pico, tokens, 1, 0, 0, 0]
            else:
                counts[0] += pico
                counts[1] += tokens
                counts[2] += 1
        return sums

    def _counts(self, key: Any) -> list[int]:
        return self._sums.setdefault(key, [0, 0, 0, 0, 0, 0])


class Spending:
    """The spend of one checkpoint. Not reused: the next checkpoint gets a new one."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._fine: dict[tuple[Any, ...], FineSums] = {}
        #: By minute and dimensions: what rules without fine fields and projects are told from.
        self._coarse: dict[tuple[int, Dimensions], Sums] = {}
        #: Changes of open calls: (rule, entity) → count, estimate; (project, provider, model).
        self._open: dict[tuple[Rule, str], list[int]] = {}
        self._live_open: dict[tuple[str, str, str], int] = {}

    def watching(self, dims: Dimensions, hour: int) -> tuple[FineSums, ...]:
        """Where calls of these dimensions and this hour have to be added one by one."""
        return tuple(
            self._fine_sums(dims, hour, fields, rules)
            for fields, rules in self._rules.covering(dims).fine
        )

    def _fine_sums(
        self, dims: Dimensions, hour: int, fields: tuple[str, ...], rules: tuple[Rule, ...]
    ) -> FineSums:
        # Calls of different models share sums unless a rule's entity is one of their dimensions.
        own = any(rule.budget.per and rule.budget.per not in fields for rule in rules)
        key = (dims if own else None, hour, fields, rules)
        sums = self._fine.get(key)
        if sums is None:
            sums = self._fine[key] = FineSums(dims, hour, fields, rules)
        return sums

    def add_delta(self, delta: Delta) -> None:
        """Add what the fold has summed up of one minute and combination of dimensions."""
        is_model = delta.operation in MODEL_OPERATIONS
        cost = 0 if delta.cost_pico == "0" else int(delta.cost_pico)
        if not is_model and not cost:
            return
        key = (
            delta.minute,
            (delta.project, delta.environment, delta.service, delta.provider, delta.model),
        )
        sums = self._coarse.get(key)
        if sums is None:
            sums = self._coarse[key] = Sums()
        counts = sums.counts
        counts[0] += cost
        if not is_model:
            return
        usage = delta.usage
        counts[1] += usage.get("input", 0)
        counts[2] += usage.get("output", 0)
        counts[3] += delta.calls
        counts[4] += delta.failures
        counts[5] += delta.unpriced
        counts[6] += delta.usage_unknown
        hist = sums.hist
        for index, count in delta.latency_hist.items():
            hist[index] = hist.get(index, 0) + count

    def open(
        self, dims: Dimensions, entities: list[tuple[Rule, str]], sign: int, pico: int
    ) -> None:
        """A call was begun (+1) or is open no more (-1); ``pico`` is its estimate."""
        self.expose(entities, sign, pico)
        model = (dims[0], dims[3], dims[4])
        self._live_open[model] = self._live_open.get(model, 0) + sign

    def expose(self, entities: list[tuple[Rule, str]], sign: int, pico: int) -> None:
        """The same for budgets alone."""
        for entity in entities:
            change = self._open.setdefault(entity, [0, 0])
            change[0] += sign
            change[1] += sign * pico

    def outputs(self, header: SpendHeader, partitions: int, part_bytes: int) -> Iterator[Output]:
        """The records: for each partition of ``spend`` one, in parts of about ``part_bytes``."""
        lines: dict[int, list[bytes]] = {}
        for line in self._lines():
            if isinstance(line, Live):
                partition = spend_partition(line.project, "", partitions)
            else:
                partition = spend_partition(line.budget, line.entity, partitions)
            lines.setdefault(partition, []).append(_encoder.encode(line))
        for fine in self._fine.values():
            _write_fine(fine, partitions, lines)
        for partition, encoded in sorted(lines.items()):
            parts = _split(encoded, part_bytes)
            for part, chunk in enumerate(parts):
                head = msgspec.structs.replace(header, part=part, parts=len(parts))
                value = b"\n".join((_encoder.encode(head), *chunk, b""))
                yield Output(SPEND.name, SPEND_KEY, value, partition)

    def _lines(self) -> Iterator[Spend | Live]:
        spent: dict[_Entity, Sums] = {}
        live: dict[_Cell, Sums] = {}
        for (minute, dims), sums in self._coarse.items():
            live.setdefault((dims[0], minute, dims[3], dims[4]), Sums()).add(sums)
            for rule in self._rules.covering(dims).coarse:
                entity = rule.entity(dims, ())
                if entity is not None:
                    key = (rule, entity, minute // _HOUR_MINUTES)
                    spent.setdefault(key, Sums()).add(sums)
        for key, sums in spent.items():
            yield _spend_line(key, sums)
        for (rule, entity), (count, pico) in self._open.items():
            if count or pico:
                yield Spend(
                    budget=rule.budget.id, basis=rule.budget.basis, window=rule.budget.window,
                    entity=entity, open=count, exposure_pico=str(pico),
                )  # fmt: skip
        for cell, sums in live.items():
            yield _live_line(cell, sums)
        for (project, provider, model), count in self._live_open.items():
            if count:
                yield Live(project=project, minute=0, provider=provider, model=model, open=count)


def _write_fine(fine: FineSums, partitions: int, lines: dict[int, list[bytes]]) -> None:
    """The lines of fine sums, written by hand: there is one for each user and budget.

    What follows the budget is the same for all rules that take a call's value as their entity, so
    it is written once. Sums of an entity may stand in several lines: they are deltas.
    """
    single = len(fine.fields) == 1
    heads = [(rule, _line_head(rule)) for rule in fine.rules]
    for key, counts in fine.gather().items():
        values = (key,) if single else key
        written: dict[tuple[str, bool], tuple[bytes, bytes]] = {}
        for rule, head in heads:
            entity = (key or None) if rule.is_value else rule.entity(fine.dims, values)
            if entity is None:
                continue
            tail = written.get((entity, rule.latency))
            if tail is None:
                hist = _latencies(fine, key) if rule.latency else b""
                tail = (entity.encode(), _line_tail(entity, fine.hour, counts, hist))
                written[entity, rule.latency] = tail
            partition = spend_place(rule.placing, tail[0], partitions)
            lines.setdefault(partition, []).append(head + tail[1])


def _line_head(rule: Rule) -> bytes:
    budget = rule.budget
    line = Spend(budget=budget.id, basis=budget.basis, window=budget.window)
    return _encoder.encode(line)[:-1]


def _latencies(fine: FineSums, key: Any) -> bytes:
    if fine.latencies is None or key not in fine.latencies:
        return b""
    return b',"latency_hist":' + _encoder.encode(count_buckets(fine.latencies[key]))


def _line_tail(entity: str, hour: int, counts: list[int], hist: bytes) -> bytes:
    cost, tokens, calls, failures, unpriced, unknown = counts
    more = hist
    if failures:
        more += b',"failures":%d' % failures
    if unpriced:
        more += b',"unpriced":%d' % unpriced
    if unknown:
        more += b',"usage_unknown":%d' % unknown
    return b',"entity":%b,"hour":%d,"cost_pico":"%d","tokens":%d,"calls":%d%b}' % (
        _encoder.encode(entity), hour, cost, tokens, calls, more,
    )  # fmt: skip


def _spend_line(key: _Entity, sums: Sums) -> Spend:
    rule, entity, hour = key
    cost, read, written, calls, failures, unpriced, unknown = sums.counts
    return Spend(
        budget=rule.budget.id,
        basis=rule.budget.basis,
        window=rule.budget.window,
        entity=entity,
        hour=hour,
        cost_pico=str(cost),
        tokens=read + written,
        calls=calls,
        failures=failures,
        unpriced=unpriced,
        usage_unknown=unknown,
        latency_hist=sums.hist if rule.latency and sums.hist else UNSET,
    )


def _live_line(cell: _Cell, sums: Sums) -> Live:
    cost, read, written, calls, failures, unpriced, unknown = sums.counts
    return Live(
        project=cell[0],
        minute=cell[1],
        provider=cell[2],
        model=cell[3],
        calls=calls,
        failures=failures,
        input_tokens=read,
        output_tokens=written,
        cost_pico=str(cost),
        unpriced=unpriced,
        usage_unknown=unknown,
        latency_hist=sums.hist or UNSET,
    )


def _split(lines: list[bytes], part_bytes: int) -> list[list[bytes]]:
    parts: list[list[bytes]] = [[]]
    size = 0
    for line in lines:
        if size and size + len(line) > part_bytes:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line) + 1
    return parts
