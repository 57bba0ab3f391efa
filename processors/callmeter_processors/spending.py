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
from callmeter.schema.spend import SPEND_KEY, Live, Spend, SpendHeader, spend_partition
from callmeter.schema.topics import SPEND
from callmeter_processors.matching import Dimensions, Rule, Rules, getter
from callmeter_processors.step import Output

_HOUR_MINUTES = 60
_MINUTE_US = 60_000_000
#: Positions in a list of sums.
_COST, _TOKENS, _CALLS, _FAILURES, _UNPRICED, _UNKNOWN = range(6)
_encoder = msgspec.json.Encoder()

#: A rule, its entity, the hour.
_Entity = tuple[Rule, str, int]


class Sums:
    """Six counts, and latencies as a histogram where an objective asks for them."""

    __slots__ = ("counts", "hist")

    def __init__(self) -> None:
        self.counts = [0] * 6
        self.hist: dict[int, int] | None = None

    def add(self, counts: list[int], hist: dict[int, int] | None) -> None:
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        if hist:
            if self.hist is None:
                self.hist = {}
            for index, count in hist.items():
                self.hist[index] = self.hist.get(index, 0) + count


class FineSums:
    """Calls of one hour by the values of some fine fields, for the rules that share them."""

    __slots__ = ("dims", "fields", "hour", "latencies", "of", "rules", "sums")

    def __init__(
        self, dims: Dimensions, hour: int, fields: tuple[str, ...], rules: tuple[Rule, ...]
    ) -> None:
        self.dims = dims
        self.hour = hour
        self.fields = fields
        self.rules = rules
        self.of = getter(fields)
        self.sums: dict[Any, list[int]] = {}
        wanted = any(rule.latency for rule in rules)
        self.latencies: dict[Any, list[int]] | None = {} if wanted else None

    def add(self, call: CallEnd, pico: int | None, failed: bool) -> None:
        """Add one model call, priced as it was."""
        key = self.of(call)
        counts = self.sums.get(key)
        if counts is None:
            counts = self.sums[key] = [0, 0, 0, 0, 0, 0]
        usage = call.usage
        if usage is UNSET:
            counts[_UNKNOWN] += 1
        else:
            counts[_TOKENS] += usage.get("input", 0) + usage.get("output", 0)
            if pico is None:
                counts[_UNPRICED] += 1
        if pico is not None:
            counts[_COST] += pico
        counts[_CALLS] += 1
        counts[_FAILURES] += failed
        if self.latencies is not None and call.latency_us is not UNSET:
            self.latencies.setdefault(key, []).append(call.latency_us)

    def add_cost(self, cost: Cost, pico: int) -> None:
        """Add money apart from its call."""
        self.sums.setdefault(self.of(cost), [0, 0, 0, 0, 0, 0])[_COST] += pico


class Spending:
    """The spend of one checkpoint. Not reused: the next checkpoint gets a new one."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._fine: dict[tuple[Any, ...], FineSums] = {}
        self._coarse: dict[tuple[int, Dimensions], Sums] = {}
        self._live: dict[tuple[str, int, str, str], Sums] = {}
        self._live_tokens: dict[tuple[str, int, str, str], list[int]] = {}
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
        cost = int(delta.cost_pico)
        if not is_model and not cost:
            return
        usage = delta.usage
        read, written = usage.get("input", 0), usage.get("output", 0)
        counts = (
            [cost, read + written, delta.calls, delta.failures, delta.unpriced, delta.usage_unknown]
            if is_model
            else [cost, 0, 0, 0, 0, 0]
        )
        hist = delta.latency_hist if is_model else None
        dims = (delta.project, delta.environment, delta.service, delta.provider, delta.model)
        if self._rules.covering(dims).coarse:
            key = (delta.minute // _HOUR_MINUTES, dims)
            sums = self._coarse.get(key)
            if sums is None:
                sums = self._coarse[key] = Sums()
            sums.add(counts, hist)
        cell = (delta.project, delta.minute, delta.provider, delta.model)
        live = self._live.get(cell)
        if live is None:
            live = self._live[cell] = Sums()
            self._live_tokens[cell] = [0, 0]
        live.add(counts, hist)
        if is_model:
            tokens = self._live_tokens[cell]
            tokens[0] += read
            tokens[1] += written

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
        for partition, encoded in sorted(lines.items()):
            parts = _split(encoded, part_bytes)
            for part, chunk in enumerate(parts):
                head = msgspec.structs.replace(header, part=part, parts=len(parts))
                value = b"\n".join((_encoder.encode(head), *chunk, b""))
                yield Output(SPEND.name, SPEND_KEY, value, partition)

    def _lines(self) -> Iterator[Spend | Live]:
        spent: dict[_Entity, Sums] = {}
        self._spend_coarse(spent)
        for fine in self._fine.values():
            _spend_fine(spent, fine)
        for (rule, entity, hour), sums in spent.items():
            yield _spend_line(rule, entity, hour, sums)
        for (rule, entity), (count, pico) in self._open.items():
            if count or pico:
                yield Spend(
                    budget=rule.budget.id, basis=rule.budget.basis, window=rule.budget.window,
                    entity=entity, open=count, exposure_pico=str(pico),
                )  # fmt: skip
        for cell, sums in self._live.items():
            yield _live_line(cell, sums, self._live_tokens[cell])
        for (project, provider, model), count in self._live_open.items():
            if count:
                yield Live(project=project, minute=0, provider=provider, model=model, open=count)

    def _spend_coarse(self, spent: dict[_Entity, Sums]) -> None:
        for (hour, dims), sums in self._coarse.items():
            for rule in self._rules.covering(dims).coarse:
                entity = rule.entity(dims, ())
                if entity is not None:
                    _add(spent, (rule, entity, hour), sums.counts, sums.hist)


def _spend_fine(spent: dict[_Entity, Sums], fine: FineSums) -> None:
    single = len(fine.fields) == 1
    for key, counts in fine.sums.items():
        values = (key,) if single else key
        hist = None
        if fine.latencies is not None:
            hist = count_buckets(fine.latencies.get(key, ()))
        for rule in fine.rules:
            entity = rule.entity(fine.dims, values)
            if entity is not None:
                _add(spent, (rule, entity, fine.hour), counts, hist)


def _add(
    spent: dict[_Entity, Sums], key: _Entity, counts: list[int], hist: dict[int, int] | None
) -> None:
    sums = spent.get(key)
    if sums is None:
        sums = spent[key] = Sums()
    sums.add(counts, hist if key[0].latency else None)


def _spend_line(rule: Rule, entity: str, hour: int, sums: Sums) -> Spend:
    cost, tokens, calls, failures, unpriced, unknown = sums.counts
    return Spend(
        budget=rule.budget.id,
        basis=rule.budget.basis,
        window=rule.budget.window,
        entity=entity,
        hour=hour,
        cost_pico=str(cost),
        tokens=tokens,
        calls=calls,
        failures=failures,
        unpriced=unpriced,
        usage_unknown=unknown,
        latency_hist=sums.hist or UNSET,
    )


def _live_line(cell: tuple[str, int, str, str], sums: Sums, tokens: list[int]) -> Live:
    cost, _, calls, failures, unpriced, unknown = sums.counts
    return Live(
        project=cell[0],
        minute=cell[1],
        provider=cell[2],
        model=cell[3],
        calls=calls,
        failures=failures,
        input_tokens=tokens[0],
        output_tokens=tokens[1],
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
