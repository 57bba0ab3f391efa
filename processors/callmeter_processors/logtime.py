"""The log's time, also while no record comes."""

from __future__ import annotations


class LogTime:
    """How late it is by the log.

    The newest record's time while records come, so that a meter that is behind does not take what
    it has not read yet for silence. Between records it goes on with the wall's clock: by as much as
    passed since the first tick without one. A meter that was down does not count that time either.
    """

    __slots__ = ("_idle_since_us", "_newest_us")

    def __init__(self) -> None:
        self._newest_us = 0
        self._idle_since_us: int | None = None

    def record(self, log_us: int) -> None:
        """A record of log time ``log_us`` was read, or is known to have been."""
        self._newest_us = max(self._newest_us, log_us)
        self._idle_since_us = None

    def at(self, wall_us: int) -> int:
        """The log's time at a tick of the wall's clock; 0 as long as there was no record at all."""
        if not self._newest_us:
            return 0
        if self._idle_since_us is None:
            self._idle_since_us = wall_us
        return self._newest_us + max(0, wall_us - self._idle_since_us)

    @property
    def newest_us(self) -> int:
        """The newest record's time."""
        return self._newest_us
