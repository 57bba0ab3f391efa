"""Which of several shards a store is.

docs/decisions/0023-shards.md says why there are shards; ``shards`` has the stores by shard.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sharding:
    """Of one store among several shards: how many there are, and which of them it is.

    ``index`` None is the read side, which sees all. ``database`` is where the tables lie.
    """

    shards: int
    database: str
    index: int | None = None

    @property
    def reading(self) -> bool:
        return self.index is None
