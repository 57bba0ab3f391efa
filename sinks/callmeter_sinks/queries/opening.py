"""What a budget had spent before the meter counted it: the opening balance (design 7)."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from callmeter.errors import UsageError
from callmeter.money import to_pico
from callmeter.schema.budgets import DIMENSIONS, TAG, Budget
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import MODEL_OPERATIONS_SQL, Binding

_HOUR = "intDiv(toUnixTimestamp64Micro(started_at), 3600000000)"


@dataclass(frozen=True, slots=True)
class OpeningRow:
    """What one hour of an entity had spent; ``entity`` "" is the whole budget."""

    entity: str
    hour: int
    cost_pico: int
    tokens: int = 0
    calls: int = 0
    failures: int = 0
    unpriced: int = 0
    usage_unknown: int = 0


@dataclass(frozen=True, slots=True)
class Origins:
    """The records of one partition of ``events`` below offset ``below``."""

    log_id: str
    partition: int
    below: int


def is_stored(store: Store, origins: Origins) -> bool:
    """Whether the store has all of these records, so that a sum over them is final.

    An insert fills one table after the other, the ledger first. Whatever lies below the newest
    intent is in all of them; of the rest, calls and costs must be as many as the ledger says.
    """
    if origins.below <= 0:
        return True
    binding = Binding()
    where = _of(origins, binding)
    answer = store.query(
        f"SELECT max(origin), count() FROM envelopes WHERE {where}", binding.values
    )
    newest, count = answer.rows[0]
    if not count or int(newest) < origins.below - 1:
        return False
    open_from = (
        "SELECT argMax(origin_first, (generation, owner, last, -toInt64(records))) "
        f"FROM sink_intents WHERE topic = 'metered' AND {_of_log(origins, binding)}"
    )
    where = f"{where} AND origin >= ({open_from})"
    ledger = f"FROM envelopes WHERE verdict = 'accepted' AND {where}"
    answer = store.query(
        f"SELECT (SELECT sum(call_ends) {ledger}) = (SELECT count() FROM calls WHERE {where}) "
        f"AND (SELECT sum(costs) {ledger}) = (SELECT count() FROM costs WHERE {where})",
        binding.values,
    )
    return bool(answer.rows[0][0])


def opening_spend(
    store: Store, budget: Budget, origins: Origins, since_us: int
) -> list[OpeningRow]:
    """The budget's spend of these records, of calls that began at ``since_us`` or later.

    In the order of entity and hour, so that the same question has the same answer line by line.
    """
    if origins.below <= 0:
        return []
    return [*_calls(store, budget, origins, since_us), *_costs(store, budget, origins, since_us)]


def _calls(store: Store, budget: Budget, origins: Origins, since_us: int) -> Iterator[OpeningRow]:
    binding = Binding()
    where = _where(budget, origins, since_us, binding)
    answer = store.query(
        f"SELECT {_entity(budget, binding)} AS entity, {_HOUR} AS hour, "
        "toString(sum(ifNull(cost, 0))), "
        "sum(ifNull(input_tokens, 0) + ifNull(output_tokens, 0)), count(), "
        "countIf(status != 'ok'), countIf(unpriced), countIf(usage_unknown) "
        f"FROM calls WHERE operation IN {MODEL_OPERATIONS_SQL} AND {where} "
        "GROUP BY entity, hour ORDER BY entity, hour",
        binding.values,
    )
    for entity, hour, usd, *counts in answer.rows:
        yield OpeningRow(entity, int(hour), to_pico(usd), *map(int, counts))


def _costs(store: Store, budget: Budget, origins: Origins, since_us: int) -> Iterator[OpeningRow]:
    binding = Binding()
    where = _where(budget, origins, since_us, binding)
    answer = store.query(
        f"SELECT {_entity(budget, binding)} AS entity, {_HOUR} AS hour, toString(sum(cost)) "
        f"FROM costs WHERE {where} GROUP BY entity, hour ORDER BY entity, hour",
        binding.values,
    )
    for entity, hour, usd in answer.rows:
        yield OpeningRow(entity, int(hour), to_pico(usd))


def _where(budget: Budget, origins: Origins, since_us: int, binding: Binding) -> str:
    parts = [_of(origins, binding)]
    parts.append(f"toUnixTimestamp64Micro(started_at) >= {binding.add(since_us, 'Int64')}")
    for name, values in sorted(budget.scope.items()):
        column = _column(name, binding)
        tests = []
        for value in values:
            if value.endswith("*"):
                tests.append(f"startsWith({column}, {binding.add(value[:-1], 'String')})")
            else:
                tests.append(f"{column} = {binding.add(value, 'String')}")
        parts.append(f"({' OR '.join(tests)})")
    if budget.per:
        parts.append(f"{_column(budget.per, binding)} != ''")
    return " AND ".join(parts)


def _of(origins: Origins, binding: Binding) -> str:
    return f"{_of_log(origins, binding)} AND origin < {binding.add(origins.below, 'Int64')}"


def _of_log(origins: Origins, binding: Binding) -> str:
    return (
        f"log_id = toUUID({binding.add(origins.log_id, 'String')}) "
        f"AND partition = {binding.add(origins.partition, 'UInt16')}"
    )


def _entity(budget: Budget, binding: Binding) -> str:
    return f"toString({_column(budget.per, binding)})" if budget.per else "''"


def _column(name: str, binding: Binding) -> str:
    """A dimension's column, if there is one of that name; a tag's key is bound."""
    if name.startswith(TAG):
        return f"tags[{binding.add(name[len(TAG) :], 'String')}]"
    if name not in DIMENSIONS:
        raise UsageError(f"a budget has no dimension {name[:60]!r}")
    return f"`{name}`"
