"""Origins of a partition follow one another: what proves that nothing was lost on the way."""

from __future__ import annotations

from callmeter_sinks.faults import OriginBreakError
from callmeter_sinks.rows import Metered


class OriginSequence:
    """The order of one history (one log id) of one partition.

    ``next`` is the origin expected next, None before the first record. ``began`` is where the
    checkpoint that is being read began, None until a whole one was seen.
    """

    def __init__(
        self, partition: int, expected: int | None = None, began: int | None = None
    ) -> None:
        self.partition = partition
        self.next = expected
        self.began = began
        self._part = 0

    def check(self, record: Metered) -> None:
        """Advance over a record; ``OriginBreakError`` if it is not the next one, and no advance."""
        if record.type == "envelope":
            if self.next is not None and record.first != self.next:
                raise OriginBreakError(self.partition, record.offset, self.next, record.first)
            self.next = record.first + 1
            return
        if self.next is not None and record.last + 1 != self.next:
            raise OriginBreakError(self.partition, record.offset, self.next, record.last + 1)
        if self.began is not None and record.first != self.began:
            raise OriginBreakError(self.partition, record.offset, self.began, record.first)
        if self.began is not None and record.part != self._part:
            raise OriginBreakError(self.partition, record.offset, self._part, record.part)
        self.next = record.last + 1
        self._part = record.part + 1
        if record.ends_checkpoint:
            self.began = self.next
            self._part = 0

    def resume_at(self, record: Metered) -> None:
        """Take the record as the next one: what lay between is lost and was accepted as lost."""
        self.next = record.last + 1
        self.began = self.next if record.ends_checkpoint else None
        self._part = 0 if record.ends_checkpoint else record.part + 1
