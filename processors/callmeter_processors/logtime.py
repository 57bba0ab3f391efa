"""The log's time, also while no record comes."""

from __future__ import annotations


class LogTime:
    """How late it is by the log.

    The newest record's time while records come, so that a meter that is behind does not take what
    it has not read yet for silence. Between records it goes on with the wall's clock: by as much as
    passed since the first tick without one. A meter that was down does not count that time either.

    ``heard_us`` is since when silence can be told: a log that was away has nothing from anybody,
    and for that nobody was silent. It is the time of the first record after more than ``blank_us``
    without one.
    """

    __slots__ = ("_blank_us", "_idle_since_us", "_newest_us", "heard_us")

    def __init__(self, blank_us: int) -> None:
        self._blank_us = blank_us
        self.heard_us = 0
        self._newest_us = 0
        self._idle_since_us: int | None = None

    def record(self, log_us: int) -> None:
        """A record of log time ``log_us`` was read."""
        if log_us - self._newest_us > self._blank_us:
            self.heard_us = log_us
        self._newest_us = max(self._newest_us, log_us)
        self._idle_since_us = None

    def restore(self, log_us: int) -> None:
        """A record of log time ``log_us`` was read before, by whoever had the partition then."""
        self._newest_us = max(self._newest_us, log_us)

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
