"""``callmeter doctor --serve``: findings as Prometheus metrics, looked at again and again.

Every name is in docs/reference/metrics-doctor.md, generated from ``METRICS``.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click

from callmeter.cli.doctor_finding import THOROUGH, Figure, Finding, State
from callmeter.cli.doctor_places import Places
from callmeter.cli.monitor import Monitor
from callmeter.errors import CallmeterError
from callmeter.scrape import Family, Scraped, gauge

PREFIX = "callmeter_doctor"
#: Every metric: labels, what it says.
METRICS = {
    "state": (("piece",), "How a piece is: 0 well, 1 worth a look, 2 does not do its work."),
    "look_timestamp_seconds": ((), "When the doctor last finished a look."),
    "look_seconds": ((), "How long the last look took."),
    "group_lag_records": (("group",), "Records that wait for meter, watch or sink."),
    "group_members": (("group",), "Processes of meter, watch or sink at work."),
    "topic_replicas": ((), "Copies of the topic that has the fewest."),
    "newest_stored_timestamp_seconds": ((), "Log time of the newest envelope in the store."),
    "clock_ahead_seconds": (("of",), "How far the clock of collector or store is ahead of ours."),
    "dead_letters_last_hour": (("reason",), "Lines and envelopes refused within the last hour."),
    "missing_envelopes": ((), "Envelopes of the last 7 days that never arrived."),
    "dropped_events": ((), "Events that producers heard from in 7 days say they dropped."),
    "unpriced_calls_last_day": ((), "Calls of the last 24 hours without a known price."),
    "instrumented_twice_last_hour": ((), "Calls of the last hour metered by two roads at once."),
    "spool_bytes": ((), "Bytes in the spool that could not be delivered yet."),
    "spool_oldest_seconds": ((), "Age of the oldest of them."),
    "spool_orphaned_sources": ((), "Sources in the spool whose process is gone."),
    "verify_timestamp_seconds": ((), "When `verify` last finished."),
    "verify_seconds": ((), "How long it took."),
    "verify_equal": ((), "1 if everything it could compare agreed, else 0."),
    "verify_unverifiable": ((), "Parts that it could not compare."),
}
_VERIFIED = timedelta(days=2)
#: An insert fills one table after the other: what is this young may still be half there, and books
#: are told to differ only when they differ so often in a row, a look apart.
_SETTLED = timedelta(minutes=1)
_AGREE_TRIES = 3
#: What makes the store read days of calls is asked this often.
_THOROUGH_S = 600.0
_LEVEL = {State.OK: 0, State.NOTICE: 1, State.WRONG: 2}
#: A look that has not come back for so many rounds hangs: the process is to be started again.
_STUCK_ROUNDS = 20


class Ward(Scraped):
    """The newest findings, for a scrape from any thread: a Prometheus collector."""

    prefix = PREFIX

    def __init__(self) -> None:
        self._findings: dict[str, list[Finding]] = {}
        self._figures: tuple[Figure, ...] = ()
        self._verified: tuple[Figure, ...] = ()
        self.looked_s: float | None = None
        self.moved_s = time.monotonic()

    def found(self, findings: list[Finding], took_s: float) -> None:
        """Take up what one look found; what only thorough looks ask for stays as it was."""
        told: dict[str, list[Finding]] = {}
        for each in findings:
            told.setdefault(each.piece, []).append(each)
        kept = {piece: self._findings[piece] for piece in THOROUGH if piece in self._findings}
        self._findings = kept | told
        self._figures = (
            *(
                Figure("state", max(_LEVEL.get(each.state, 0) for each in some), {"piece": piece})
                for piece, some in self._findings.items()
            ),
            *(f for some in self._findings.values() for each in some for f in each.figures),
            Figure("look_timestamp_seconds", time.time()),
            Figure("look_seconds", took_s),
        )
        self.looked_s = self.moved_s = time.monotonic()

    def verified(self, *, equal: bool, unverifiable: int, took_s: float) -> None:
        """Take up what ``verify`` said."""
        self._verified = (
            Figure("verify_timestamp_seconds", time.time()),
            Figure("verify_seconds", took_s),
            Figure("verify_equal", float(equal)),
            Figure("verify_unverifiable", unverifiable),
        )

    def families(self) -> Iterator[Family]:
        """All of ``METRICS``, with what was found of each."""
        found = (*self._figures, *self._verified)
        for name, (labels, says) in METRICS.items():
            yield gauge(
                name,
                says,
                [({each: f.labels[each] for each in labels}, f.value)
                 for f in found if f.name == name],
            )  # fmt: skip


def serve(
    places: Places, address: str, *, every_s: float, verify_every_s: float, quiet: bool
) -> None:
    """Look every ``every_s`` seconds until SIGTERM or SIGINT; whatever is wrong is a figure."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    ward = Ward()
    monitor = Monitor(
        address, [ward],
        unready=lambda: "has not looked yet" if ward.looked_s is None else None,
        ailing=lambda: _ailing(ward, every_s),
    )  # fmt: skip
    with monitor:
        if not quiet:
            click.echo(f"metrics are served at {monitor.url}/metrics")
        verify_at_s = time.monotonic() if verify_every_s else float("inf")
        thorough_at_s = time.monotonic()
        differed = 0
        while not stopping.is_set():
            began_s = time.monotonic()
            thorough = began_s >= thorough_at_s
            if thorough:
                thorough_at_s = began_s + max(_THOROUGH_S, every_s)
            findings = list(places.look(thorough=thorough))
            ward.found(findings, time.monotonic() - began_s)
            if time.monotonic() >= verify_at_s:
                differed = 0 if _verify(places, ward, tries=differed) else differed + 1
                again = 0 < differed < _AGREE_TRIES
                # The next one only after a whole interval, however long this one takes.
                verify_at_s = time.monotonic() + (every_s if again else verify_every_s)
                differed %= _AGREE_TRIES
            stopping.wait(max(0.0, began_s + every_s - time.monotonic()))


def _ailing(ward: Ward, every_s: float) -> str | None:
    silent_s = time.monotonic() - ward.moved_s
    if silent_s > max(600.0, _STUCK_ROUNDS * every_s):
        return f"no look has come back for {silent_s:.0f} s"
    return None


def _verify(places: Places, ward: Ward, *, tries: int) -> bool:
    """Compare the last two days; whether they agree, or cannot be compared now.

    If the store is away the last result stands, with its time. A difference counts only after
    ``tries`` before it in a row.
    """
    url = places.store_to_ask()
    if url is None:
        return True
    from callmeter_sinks.clickhouse.opening import open_store
    from callmeter_sinks.verify import verify

    began_s, now = time.monotonic(), datetime.now(UTC)
    try:
        store = open_store(url)
        try:
            result = verify(store, since=now - _VERIFIED, until=now - _SETTLED)
        finally:
            store.close()
    except CallmeterError as exc:
        click.echo(f"verify: {exc}", err=True)
        return True
    ward.moved_s = time.monotonic()
    if not result.equal:
        differing = [check.what for check in result.checks if not check.equal]
        click.echo(f"verify: {len(differing)} checks differ, as {differing[0]}", err=True)
        if tries + 1 < _AGREE_TRIES:
            return False
    ward.verified(
        equal=result.equal,
        unverifiable=len(result.unverifiable),
        took_s=time.monotonic() - began_s,
    )
    return result.equal
