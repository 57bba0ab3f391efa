"""Why a sink stops. None of these loses anything: what was not inserted is still in the log."""

from __future__ import annotations

from callmeter.errors import EXIT_INCOMPLETE, CallmeterError, DataError


class FencedError(CallmeterError):
    """Another sink of the same name has claimed the partition; it goes on from the same intents."""

    exit_code = 73

    def __init__(self, partition: int, generation: int) -> None:
        super().__init__(
            f"partition {partition} was taken over by another sink (generation {generation}): "
            "run sinks that read one log under one name in one consumer group"
        )
        self.partition = partition


class OriginBreakError(DataError):
    """Two records that follow each other in ``metered`` do not follow each other in ``events``."""

    def __init__(self, partition: int, offset: int, expected: int, found: int) -> None:
        missing = f"origins {expected} to {found - 1} are missing"
        hint = "(--accept-loss goes on without them and records it)"
        text = f"{missing} {hint}" if found > expected else "the log holds an envelope twice"
        super().__init__(
            f"partition {partition}, metered offset {offset}: expected origin {expected}, "
            f"found {found}: {text}"
        )
        self.partition = partition
        self.offset = offset
        self.expected = expected
        self.found = found


class RangeLostError(CallmeterError):
    """Retention removed records from the log before they were known to be in the store."""

    exit_code = EXIT_INCOMPLETE

    def __init__(self, partition: int, first: int, last: int, available: int) -> None:
        super().__init__(
            f"partition {partition}: metered offsets {first} to {last} are needed, but the log now "
            f"begins at {available}: --accept-loss goes on and records what may be missing"
        )
        self.partition = partition


class RangeChangedError(DataError):
    """The log gives other records for a range than it gave when its intent was written."""

    def __init__(self, partition: int, first: int, last: int) -> None:
        super().__init__(
            f"partition {partition}: metered offsets {first} to {last} are not what they were when "
            "they were about to be inserted: is this another log under the same id?"
        )


class StoppedError(CallmeterError):
    """The sink was told to stop while it waited for the store."""

    exit_code = 0
