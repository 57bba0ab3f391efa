"""The contract between the pure core and the runtimes.

A step folds the records of one source partition. It does no I/O and reads no clock: time comes from
the records and from ``tick``. A runtime restores it, feeds it, and at a checkpoint writes rows,
outputs and position in one transaction. Whatever was not committed never existed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from callmeter.log.record import LogRecord
from callmeter.schema.budgets import Budget

#: What is counted, and which kind of it ("" where there is one): ("dead_letters", "bad_header").
#: Every step counts ("events", ""), the event lines it has judged.
Count = tuple[str, str]


class Output(NamedTuple):
    """A record to be written with the checkpoint. ``partition`` None means murmur2(key) mod N.

    ``value`` None deletes the key of a compacted topic.
    """

    topic: str
    key: bytes
    value: bytes | None
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What changed since the last checkpoint.

    ``rows`` are changed state rows; None deletes a row. ``outputs`` keep their order within a
    partition. The position is the runtime's own row. ``counts`` is what happened since then, for
    metrics: like all else it counts once it is written.
    """

    rows: Mapping[bytes, bytes | None] = field(default_factory=dict)
    outputs: Sequence[Output] = ()
    counts: Mapping[Count, int] = field(default_factory=dict)


class Step(Protocol):
    """One partition's fold. Called from one thread, in the order of offsets.

    ``restore`` is called once, before anything else, with every live row of the partition.
    ``process`` never raises on a producer's input: bad input becomes a verdict. An exception is a
    bug or a newer state format (``NewerSchemaError``), and stops the worker before anything is
    committed. ``tick(now_us)`` tells the wall time, at most once a second, before a checkpoint.
    ``checkpoint`` returns the changes and forgets them; if the transaction fails the runtime throws
    the step away and restores a new one from the log.
    """

    def restore(self, rows: Mapping[bytes, bytes]) -> None: ...

    def process(self, record: LogRecord) -> None: ...

    def tick(self, now_us: int) -> None: ...

    def checkpoint(self) -> Checkpoint: ...


@runtime_checkable
class Configurable(Protocol):
    """A step that works by budget definitions.

    ``configure`` is called between ``restore`` and the first record, and again whenever definitions
    have changed, always with all of them; ``next_offset`` is the next record to come and
    ``partitions`` the prefix's N. It may be called between a record and its checkpoint.
    """

    def configure(self, budgets: Sequence[Budget], next_offset: int, partitions: int) -> None: ...


@runtime_checkable
class Measured(Protocol):
    """A step that says how much it holds: ``state_rows`` and whatever else is worth a gauge.

    ``figures`` is called about once a second, between a record and its checkpoint too.
    """

    def figures(self) -> Mapping[str, int]: ...


#: Makes the step of a partition: (log id, partition) -> Step.
StepFactory = Callable[[str, int], Step]
