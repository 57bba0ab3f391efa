"""Follows the published book, so that an update reaches meters that run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from callmeter.errors import CallmeterError
from callmeter.pricing.codec import book_from_json
from callmeter.pricing.live import LivePricer

logger = logging.getLogger("callmeter.pricing")


class BookWatch:
    """``pricer`` prices by the newest book that ``load`` gives; looks again every ``every_s``.

    ``load`` returns the published book's bytes and is called from a thread of the watch's own. What
    cannot be loaded or read is logged and left alone: pricing goes on by the book before. Raises
    what is wrong with the first book.
    """

    def __init__(self, first: bytes, load: Callable[[], bytes | None], every_s: float) -> None:
        self._data = first
        self._load = load
        self._every_s = every_s
        self._stopping = threading.Event()
        self.pricer = LivePricer(book_from_json(first))
        self._thread = threading.Thread(target=self._run, name="callmeter-prices", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def look(self) -> None:
        """Take up a newer book, if there is one."""
        try:
            data = self._load()
            if data is None or data == self._data:
                return
            self._data = data
            self.pricer.replace(book_from_json(data))
        except CallmeterError as exc:
            logger.warning("the published price book cannot be used: %s", exc)
        else:
            logger.info("pricing by book %s", self.pricer.version)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self.look()
