"""Notify inside ``callmeter up``: follows the embedded log's alerts on a thread."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

from callmeter.clock import SystemClock
from callmeter.log.dirlock import DirectoryLock
from callmeter.log.sqlite_log import SqliteLog
from callmeter.log.sqlite_tail import SqliteTail
from callmeter.schema.topics import ALERTS
from callmeter_processors.notify.config import NotifyConfig
from callmeter_processors.notify.deadletters import DeadLetterFile
from callmeter_processors.notify.notifier import Notifier
from callmeter_processors.notify.outbox import Outbox
from callmeter_processors.notify.sending import NetworkSender

#: Where notify keeps its state below a data directory, and the files in it.
STATE_DIRECTORY = "notify"
OUTBOX_FILE = "outbox.db"
DEAD_LETTERS_FILE = "dead-letters.jsonl"
#: Alerts older than this at the very first start are known and not sent.
SINCE_S = 3600.0
_POLL_S = 0.25
_FORGET_S = 3600.0


class NotifyThread:
    """Delivers what the log's workers raise, from ``start`` to ``stop``.

    ``stop`` takes what was raised until then; what is not delivered yet waits for the next start.
    ``start`` raises ``CannotWriteError`` if another process notifies from this directory.
    """

    def __init__(self, log: SqliteLog, directory: Path, config: NotifyConfig) -> None:
        self._log = log
        self._home = directory / STATE_DIRECTORY
        self._config = config
        self._stack = ExitStack()
        self._stopping = threading.Event()
        self._failed: BaseException | None = None

    @property
    def failed(self) -> BaseException | None:
        """What ended it before its time."""
        return self._failed or self._notifier.failed

    @property
    def notifier(self) -> Notifier:
        """What delivers, once started."""
        return self._notifier

    def start(self) -> None:
        clock = SystemClock()
        try:
            lock = DirectoryLock(self._home)
            lock.acquire()
            self._stack.callback(lock.release)
            self._outbox = Outbox(self._home / OUTBOX_FILE, clock.now_us())
            self._stack.callback(self._outbox.close)
            self._notifier = Notifier(
                self._outbox,
                self._config.targets,
                NetworkSender(clock),
                DeadLetterFile(self._home / DEAD_LETTERS_FILE),
                clock,
                retry=self._config.retry,
                link=self._config.link,
                begin_us=self._outbox.begun_us - round(SINCE_S * 1e6),
            )
            self._stack.callback(self._notifier.stop)
            self._notifier.start()
        except BaseException:
            self._stack.close()
            raise
        self._thread = threading.Thread(target=self._run, name="callmeter-notify")
        self._thread.start()
        self._stack.callback(self._thread.join)
        self._stack.callback(self._stopping.set)

    def stop(self) -> None:
        """Stopping twice is harmless."""
        self._stack.close()

    def _run(self) -> None:
        try:
            positions = self._outbox.positions(self._log.log_id)
            begin = {(ALERTS.name, partition): at for partition, at in positions.items()}
            tail = SqliteTail(self._log, [ALERTS.name], begin)
            forgot_s = -_FORGET_S
            is_last = False
            while not is_last:
                is_last = self._stopping.wait(_POLL_S)
                self._notifier.take(self._log.log_id, tail.poll())
                if time.monotonic() - forgot_s > _FORGET_S:
                    forgot_s = time.monotonic()
                    self._outbox.forget(time.time_ns() // 1000)
        except BaseException as exc:  # noqa: BLE001  # raised by whoever watches ``failed``
            self._failed = exc
