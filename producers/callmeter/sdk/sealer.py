"""From lines to numbered envelopes, and the counters that prove what never got a number.

accepted ─┬─► line ─► envelope: numbered once, bytes never changed
          └─► dropped before it had a number (queue_full, too_large, encode_error, closed)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from callmeter._version import __version__
from callmeter.clock import Clock
from callmeter.schema.envelope import MAX_BYTES, MAX_EVENTS, Header, encode
from callmeter.schema.reasons import DropReason
from callmeter.transports.protocol import Sealed

if TYPE_CHECKING:
    from callmeter.settings import Settings

#: The longest header there can be, with room to spare.
HEADER_ROOM = 8 * 1024
#: Of the sync interval an event may spend this part in the queue and this part as a line; the rest
#: is left for a thread that is late.
JOURNAL_SHARE = 4
_MAX_LINES_BYTES = MAX_BYTES - HEADER_ROOM
SDK_NAME = f"callmeter-python/{__version__}"


class Sealer:
    """Collects lines and seals them. ``unnumbered`` and ``given_up`` tell all drops so far, for the
    header.
    """

    def __init__(
        self,
        source: str,
        settings: Settings,
        clock: Clock,
        *,
        unnumbered: Callable[[], Counter[DropReason]],
        given_up: Callable[[], Counter[DropReason]],
        out: Callable[[Sealed], None],
    ) -> None:
        self._source = source
        self._settings = settings
        self._clock = clock
        self._unnumbered = unnumbered
        self._given_up = given_up
        self._out = out
        self._max_events = min(settings.max_batch_events, MAX_EVENTS)
        self._delay_s = settings.flush_delay_s
        if settings.durable:
            # What is not in an envelope is not on disk.
            self._delay_s = min(self._delay_s, settings.sync_interval_s / JOURNAL_SHARE)
        self._lines: list[bytes] = []
        self._since_s = 0.0
        #: Bytes of the lines that wait.
        self.bytes = 0
        #: Envelopes sealed: the next one's seq.
        self.seq = 0
        #: Events in sealed envelopes.
        self.numbered = 0
        self.said_goodbye = False

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: bytes) -> None:
        """Take a line; a full envelope is sealed."""
        size = self.bytes + len(line) + 1
        if size > _MAX_LINES_BYTES:
            self.seal()
            size = len(line) + 1
        lines = self._lines
        if not lines:
            self._since_s = self._clock.monotonic_s()
        lines.append(line)
        self.bytes = size
        if len(lines) >= self._max_events:
            self.seal()

    def due_s(self) -> float:
        """Seconds until the oldest line has waited for the flush delay; infinite without lines."""
        if not self._lines:
            return float("inf")
        return self._since_s + self._delay_s - self._clock.monotonic_s()

    def seal(self, *, last: bool = False) -> None:
        """Give the waiting lines a seq and hand the envelope on; nothing without lines."""
        if not self._lines:
            return
        lines, self._lines, self.bytes = self._lines, [], 0
        self.numbered += len(lines)
        self.said_goodbye = self.said_goodbye or last
        unnumbered = self._unnumbered()
        dropped = unnumbered + self._given_up()
        header = Header(
            source=self._source,
            seq=self.seq,
            n=len(lines),
            sent_us=self._clock.now_us(),
            project=self._settings.project,
            environment=self._settings.environment,
            service=self._settings.service,
            sdk=SDK_NAME,
            # What has a number or will never have one; what is still queued is in a later header.
            accepted=self.numbered + unnumbered.total(),
            dropped={reason.value: n for reason, n in sorted(dropped.items())},
            last=last,
        )
        self.seq += 1
        self._out(Sealed(self._source, header.seq, header.n, encode(header, lines)))

    def discard(self) -> int:
        """Forget the waiting lines; how many they were."""
        count = len(self._lines)
        self._lines, self.bytes = [], 0
        return count
