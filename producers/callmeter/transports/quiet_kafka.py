"""Keeps aiokafka's log lines of our own thread out of the host's log.

While a broker is away aiokafka logs an error for every attempt, many a second. The transport tells
the same fact once, through its deliveries; the host's own use of aiokafka is left alone. The last
complaint is kept: why a connection failed (a wrong password, say) is told in the log only.
"""

from __future__ import annotations

import logging
import threading

_NAME = "aiokafka"


class _NotFrom(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.complaints: dict[int, str] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread not in self.complaints:
            return True
        if record.levelno >= logging.WARNING:
            self.complaints[record.thread] = record.getMessage()
        return False


_FILTER = _NotFrom()


def hush_this_thread() -> None:
    """From now on nothing that aiokafka or its event loop logs in this thread is shown.

    A filter on a parent does not see its children's records, so each logger gets it.
    """
    _FILTER.complaints[threading.get_ident()] = ""
    known = [name for name in logging.root.manager.loggerDict if name.startswith(_NAME)]
    for name in [*known, "asyncio"]:
        logging.getLogger(name).addFilter(_FILTER)


def unhush_this_thread() -> None:
    """The thread ends; its id may be used again."""
    _FILTER.complaints.pop(threading.get_ident(), None)


def last_complaint() -> str:
    """What aiokafka last complained about in this thread, and forget it."""
    thread = threading.get_ident()
    text = _FILTER.complaints.get(thread, "")
    _FILTER.complaints[thread] = ""
    return text
