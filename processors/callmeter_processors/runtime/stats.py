"""Figures of a runtime, as plain numbers: read them from any thread, export them as you like."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class PartitionStats:
    """One owned partition. ``end_offset`` is the log's end as last seen, -1 while unknown."""

    next_offset: int = 0
    end_offset: int = -1
    state_rows: int = 0
    restore_s: float = 0.0

    @property
    def lag(self) -> int:
        """Records that wait; 0 while the end is unknown."""
        return max(0, self.end_offset - self.next_offset)


@dataclass(slots=True)
class RuntimeStats:
    """Counters since the runtime was made; seconds are wall time.

    ``events`` counts the lines behind each record's header line. ``skipped`` are records at or
    below the position (delivered again), ``healed`` those read from the log because the consumer
    had left them out, ``lost`` offsets that the log no longer holds and ``accept_loss`` let pass.
    ``restarts`` counts partitions whose memory was dropped after a failed or fenced transaction.
    """

    records: int = 0
    events: int = 0
    bytes: int = 0
    skipped: int = 0
    healed: int = 0
    lost: int = 0
    outputs: int = 0
    rows: int = 0
    checkpoints: int = 0
    checkpoint_s: float = 0.0
    last_checkpoint_s: float = 0.0
    restarts: int = 0
    partitions: dict[int, PartitionStats] = field(default_factory=dict)

    @property
    def lag(self) -> int:
        """Records that wait in all owned partitions."""
        return sum(p.lag for p in self.partitions.copy().values())
